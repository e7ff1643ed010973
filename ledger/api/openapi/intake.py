"""What OpenAPI says of the intake, which Litestar does not know: it answers before Litestar does.

The contract tests send every case and compare the answers with this.
"""

from typing import Any

EXAMPLE = {
    "labID": "lab_67890",
    "eventType": "bill.completed",
    "eventTime": 1705747800,
    "data": {
        "billID": "bill_12345",
        "integratorID": "your_unique_integrator_id",
        "billData": {
            "status": "completed",
            "testData": [
                {"_id": "test_001", "status": "completed"},
                {"_id": "test_002", "status": "completed"},
            ],
        },
        "reportURL": "https://reports.flabs.in/bill/bill_12345",
    },
}
"""The example of Flabs' own documentation."""

PROBLEM_RESPONSE = {
    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
}


def _refusal(description: str, *headers: str) -> dict[str, Any]:
    made: dict[str, Any] = {"description": description, "content": PROBLEM_RESPONSE}
    if headers:
        made["headers"] = {name: {"schema": {"type": "string"}} for name in headers}
    return made


def _operation(operation_id: str, summary: str) -> dict[str, Any]:
    return {
        "operationId": operation_id,
        "summary": summary,
        "description": "Any body is taken and kept as it came. The answer is sent after it is "
        "durable. The same event sent again is answered with the position of the first.",
        "tags": ["intake"],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {}, "example": EXAMPLE}},
        },
        "responses": {
            "200": {
                "description": "The delivery is durable.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["outcome", "position"],
                            "additionalProperties": False,
                            "properties": {
                                "outcome": {"enum": ["recorded", "duplicate", "unreadable"]},
                                "position": {"type": "integer", "minimum": 1},
                            },
                        }
                    }
                },
            },
            "401": _refusal("The token is missing or wrong.", "WWW-Authenticate"),
            "405": _refusal("Another method than POST.", "Allow"),
            "413": _refusal("The body is longer than LEDGER_MAX_BODY."),
            "503": _refusal(
                "The delivery could not be made durable: send it again.", "Retry-After"
            ),
        },
    }


INTAKE_PATHS: dict[str, Any] = {
    "/webhooks/flabs": {
        "post": {
            **_operation("ReceiveWebhook", "Take a webhook, with the token in a header"),
            "security": [{"webhookToken": []}],
        }
    },
    "/webhooks/flabs/{secret}": {
        "post": {
            **_operation("ReceiveWebhookBySecret", "Take a webhook, with the token in the path"),
            "parameters": [
                {
                    "name": "secret",
                    "in": "path",
                    "required": True,
                    "description": "A webhook token.",
                    "schema": {"type": "string"},
                }
            ],
        }
    },
}
