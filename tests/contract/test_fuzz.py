"""What Schemathesis makes of the OpenAPI document: no fault, no hang, each answer in the contract.

The budget is fixed. The seed is printed at the start; LEDGER_TEST_FUZZ_SEED repeats a run, and
LEDGER_TEST_FUZZ_EXAMPLES makes it longer.
"""

import json
import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.server import KEY, ROOT, LedgerServer

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("LEDGER_TEST_FUZZ_EXAMPLES", "3"))
"""Of each operation, right and wrong; each is asked with every kind of key."""

PATIENCE = 10.0
SEED = int(os.environ["LEDGER_TEST_FUZZ_SEED"])

KEYS: dict[str, dict[str, object]] = {
    "read": {"scope": "read"},
    "operate": {"scope": "operate"},
    "admin": {"scope": "admin"},
    "one lab": {"scope": "operate", "labs": ["lab"]},
}
"""The kinds of keys in the database, by how they are made."""

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

SCHEMA = schemathesis.openapi.from_dict(
    json.loads((ROOT / "api_schema" / "openapi.json").read_bytes())
)
OPERATIONS = {
    found.ok().label: found.ok() for found in SCHEMA.get_all_operations() if isinstance(found, Ok)
}


def asked(case: Case[Any]) -> Case[Any]:
    """Return a case that does not wait for a position, for that may take half a minute."""
    if case.query and {"wait_ms", "min_position"} & set(case.query):
        case.query |= {"wait_ms": 0, "min_position": 0}
    return case


@pytest.fixture(scope="module")
def credentials(server: LedgerServer) -> list[dict[str, str]]:
    """Give the headers of a caller without a key, of the first key, and of one of each kind."""
    made = [
        server.api.post("/v1/keys", json={"name": name, **more}).json()["key"]
        for name, more in KEYS.items()
    ]
    return [{}, *({"Authorization": f"Bearer {key}"} for key in [KEY, *made])]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_in_the_contract(
    server: LedgerServer, credentials: list[dict[str, str]], label: str, mode: GenerationMode
) -> None:
    operation = OPERATIONS[label]

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        for headers in credentials:
            answer = asked(case).call(base_url=server.url, headers=headers, timeout=PATIENCE)
            assert answer.status_code != 500, answer.text
            case.validate_response(answer, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        pytest.skip("there is no wrong way to ask this")
