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

EXAMPLES = int(os.environ.get("LEDGER_TEST_FUZZ_EXAMPLES", "5"))
"""Of each operation, with each key, right and wrong."""

PATIENCE = 10.0
SEED = int(os.environ["LEDGER_TEST_FUZZ_SEED"])

KEYS = {"admin": KEY, "none": None}
"""The keys with which everything is asked. None sends none."""

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


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_in_the_contract(
    server: LedgerServer, label: str, key: str, mode: GenerationMode
) -> None:
    operation = OPERATIONS[label]
    presented = KEYS[key]
    headers = {"Authorization": f"Bearer {presented}"} if presented else {}

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
        answer = asked(case).call(base_url=server.url, headers=headers, timeout=PATIENCE)
        assert answer.status_code != 500, answer.text
        case.validate_response(answer, checks=CHECKS)

    try:
        ask()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE
        pytest.skip("there is no wrong way to ask this")
