"""The intake's operations in OpenAPI, written by hand: Litestar does not serve them.

The contract tests compare every response with this.
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
        "description": "Accepts any body and keeps it as it came. Responds once it is durable. An "
        "event that is sent again gets the position of its first delivery.",
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
                                "outcome": {
                                    "type": "string",
                                    "enum": ["recorded", "duplicate", "unreadable"],
                                    "description": "`recorded`: a new event. `duplicate`: it was "
                                    "in the log already. `unreadable`: kept, but not folded.",
                                },
                                "position": {
                                    "type": "integer",
                                    "minimum": 1,
                                    "description": "The event's position in the log.",
                                },
                            },
                        }
                    }
                },
            },
            "202": {
                "description": "The delivery is durable in the spool, and will be in the log.",
                "content": {
                    "application/json": {
                        "schema": {
                            "type": "object",
                            "required": ["outcome"],
                            "additionalProperties": False,
                            "properties": {
                                "outcome": {
                                    "const": "spooled",
                                    "description": "The database could not take it in time.",
                                },
                            },
                        }
                    }
                },
            },
            "401": _refusal("The token is missing or wrong.", "WWW-Authenticate"),
            "405": _refusal("The method is not POST.", "Allow"),
            "408": _refusal("The body came too slowly."),
            "413": _refusal("The body is longer than LEDGER_MAX_BODY."),
            "503": _refusal(
                "The delivery could not be made durable: send it again.", "Retry-After"
            ),
        },
    }


INTAKE_PATHS: dict[str, Any] = {
    "/webhooks/flabs": {
        "post": {
            **_operation("ReceiveWebhook", "Receive a webhook, with the token in a header"),
            "security": [{"webhookToken": []}],
        }
    },
    "/webhooks/flabs/{secret}": {
        "post": {
            **_operation("ReceiveWebhookBySecret", "Receive a webhook, with the token in the path"),
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
