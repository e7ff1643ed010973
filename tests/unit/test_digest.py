from __future__ import annotations

import json
from hashlib import sha256

import pytest

from ledger.model.digest import digest, is_json
from ledger.model.event import event_columns, read_event

VECTORS = [
    pytest.param(
        b'{"b":[1,true,null,"x"],"a":{"d":-5,"c":""}}',
        "3ac3cad1185fb0674a9715f36efea174824949a13c7e87eb8e2472639cf31e1b",
        id="json",
    ),
    pytest.param(
        b'{"a":1.50,"b":1e400,"c":0.0}',
        "379e788163589652859e0f46e6f5576928861f380eb3496cf54a4222877a9ed2",
        id="fractions-and-exponents",
    ),
    pytest.param(
        '{"é":"😀","a":"\\u0000"}'.encode(),
        "957506f330efb1ec93020b6be405bb2e6aab721049e90b2afda4569b6dbaa3c7",
        id="unicode-and-nul",
    ),
    pytest.param(
        b'{"a":"\\ud800","b":2}',
        "f0cd2b4bac2f87a4a0908c426c19b5ac4b5b7012d1ef05a6ac43324be332f211",
        id="half-a-surrogate-pair",
    ),
    pytest.param(
        b'{"a":' + b"7" * 5000 + b"}",
        "a733ff07792b33898c2359ba70f0a5121a731fae692b1a9aac924436077cb948",
        id="a-very-long-number",
    ),
    pytest.param(
        b'{"a":1', "8b0f0d75aabe01bbfba9341752c2cf7626f154e676aa791427b31aebfabc2592", id="not-json"
    ),
    pytest.param(
        b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", id="empty"
    ),
    pytest.param(
        b"[" * 201 + b"]" * 201,
        "e61b74f8f6745236d4a42f2b2248e70363b93a33fcaeb2cd23cb14f08f57fcd8",
        id="too-deep-to-be-read",
    ),
]


@pytest.mark.parametrize(("body", "expected"), VECTORS)
def test_digest_never_changes(body: bytes, expected: str) -> None:
    assert digest(body).hex() == expected


def test_the_digest_of_plain_json_is_that_of_its_canonical_form() -> None:
    body = b' { "b" : [ 1 , {"d":2,"c":3} ] , "a" : "\\u00e9" } '
    assert digest(body) == sha256('{"a":"é","b":[1,{"c":3,"d":2}]}'.encode()).digest()


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b" nonsense\n", b"\xff\xfe", b'{"a":1}x', b"NaN"]
)
def test_the_digest_of_what_is_not_json_is_that_of_its_bytes(body: bytes) -> None:
    assert digest(body) == sha256(body).digest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param('{"a":1,"b":{"c":2,"d":3}}', '{"b":{"d":3,"c":2},"a":1}', id="order-of-keys"),
        pytest.param('{"a":[1,2]}', ' {\t"a" :\r\n[ 1 , 2 ] } \n', id="white-space"),
        pytest.param('{"a":"A/é"}', '{"\\u0061":"\\u0041\\/\\u00E9"}', id="escapes"),
        pytest.param('"\U0001f600"', '"\\ud83d\\ude00"', id="a-surrogate-pair"),
        pytest.param('{"a":1.50}', '{"a":15e-1}', id="a-fraction"),
        pytest.param('{"a":1e400}', '{"a":10E+399}', id="a-number-past-any-float"),
        pytest.param('{"a":0.0}', '{"a":-0e7}', id="no-amount"),
        pytest.param('{"a":"\\ud800","b":1}', '{"b":1,"a":"\\uD800"}', id="half-a-pair"),
        pytest.param('{"a":1,"a":2}', '{"a":2}', id="of-a-key-given-twice-the-last"),
    ],
)
def test_two_spellings_of_one_value_are_one_event(one: str, other: str) -> None:
    assert digest(one.encode()) == digest(other.encode())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("[1,2]", "[2,1]", id="order-of-a-list"),
        pytest.param('{"a":null}', "{}", id="null-and-absent"),
        pytest.param('{"a":1}', '{"a":"1"}', id="number-and-string"),
        pytest.param('{"a":1.5}', '{"a":"15E-1"}', id="number-and-its-canonical-form-as-string"),
        pytest.param('{"a":1}', '{"a":true}', id="number-and-boolean"),
        pytest.param('{"a":"x"}', '{"a":"X"}', id="letter-case"),
        pytest.param('{"a":"x"}', '{"a":"x "}', id="white-space-in-a-string"),
        pytest.param('"\u00e9"', '"e\u0301"', id="unicode-composition"),
        pytest.param('"\\ud800"', '"\\ud801"', id="two-halves-of-pairs"),
        pytest.param('"\\ud800"', '"\\ufffd"', id="half-a-pair-and-the-replacement-character"),
        pytest.param('"\\ud800"', '"\\\\ud800"', id="half-a-pair-and-its-spelling"),
        pytest.param("0.1", "0.10000000000000000001", id="fractions-that-one-float-stands-for"),
        pytest.param("9007199254740993.0", "9007199254740992.0", id="integers-past-2-to-the-53"),
        pytest.param("18446744073709551616", "18446744073709551617", id="integers-past-64-bits"),
        pytest.param("1" * 5000, "1" * 4999 + "2", id="very-long-numbers"),
        pytest.param("0." + "1" * 90, "0." + "1" * 89 + "2", id="very-long-fractions"),
        pytest.param("1e400", "1e401", id="numbers-past-any-float"),
        pytest.param("1e-400", "2e-400", id="numbers-below-any-float"),
        pytest.param("1e99999999999999999999", "2e99999999999999999999", id="past-any-decimal"),
        pytest.param("1e400", "-1e400", id="signs"),
        pytest.param(
            '["\\ud800",1e400]', '["\\ud800",1e401]', id="numbers-beside-half-a-pair-past-any-float"
        ),
        pytest.param(
            '["\\ud800",0.1]',
            '["\\ud800",0.10000000000000000001]',
            id="fractions-beside-half-a-pair-that-one-float-stands-for",
        ),
        pytest.param("NaN", "null", id="not-json-and-null"),
    ],
)
def test_two_values_are_two_events(one: str, other: str) -> None:
    assert digest(one.encode()) != digest(other.encode())


BILL_DELETED = {"eventType": "bill.deleted", "eventTime": 1705747800, "data": {"billID": "B"}}


@pytest.mark.parametrize(
    "twice",
    [
        pytest.param('{"labID":5,"labID":"L",', id="first-of-a-wrong-type"),
        pytest.param('{"labID":"","labID":"L",', id="first-out-of-range"),
        pytest.param('{"labID":"M","labID":"L",', id="both-right"),
    ],
)
def test_bodies_with_one_digest_are_read_alike(twice: str) -> None:
    once = json.dumps({"labID": "L", **BILL_DELETED})
    again = twice + json.dumps(BILL_DELETED)[1:]
    assert digest(again.encode()) == digest(once.encode())
    assert read_event(again.encode()) == read_event(once.encode())


@pytest.mark.parametrize("body", [b'{"a":"\\ud800"}', b'{"a":1e400}', b"null", b'"x"', b" [] "])
def test_json_is_known_as_json(body: bytes) -> None:
    assert is_json(body)


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"1 2", b'"\xff"', b"\xef\xbb\xbf{}", b"01"])
def test_what_is_not_json_is_known(body: bytes) -> None:
    assert not is_json(body)


def test_what_is_examined_has_the_digest_of_the_body() -> None:
    body = json.dumps({"labID": "L", **BILL_DELETED}).encode()
    assert event_columns(body).digest == digest(body)
