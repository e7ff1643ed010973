"""All routes except the intake's and the schema's."""

from typing import Any

from litestar import Router
from litestar.di import Provide

from ledger.api.handlers.bills import get_bill, list_bills, list_findings
from ledger.api.handlers.changes import list_changes
from ledger.api.handlers.erasure import erase_body
from ledger.api.handlers.events import list_bill_events, list_events, list_unreadable_events
from ledger.api.handlers.expected_bills import (
    expect_bill,
    expect_bills,
    list_expected_bills,
    stop_expecting_bill,
)
from ledger.api.handlers.flabs import (
    check_account,
    get_coverage,
    get_token_rotation,
    list_account_labs,
    rotate_token,
    subscribe_labs,
)
from ledger.api.handlers.health import get_liveness, get_readiness
from ledger.api.handlers.imports import import_events
from ledger.api.handlers.keys import create_key, list_keys, revoke_key, rotate_key
from ledger.api.handlers.labs import list_labs
from ledger.api.handlers.loss_windows import close_loss_window, list_loss_windows
from ledger.api.handlers.metrics import get_metrics
from ledger.api.handlers.missing_events import (
    list_missing_events,
    unwaive_missing_event,
    waive_missing_event,
    waive_missing_events,
)
from ledger.api.handlers.projection import get_projection
from ledger.api.handlers.reconciliation import get_reconciliation
from ledger.api.handlers.refused_deliveries import (
    accept_refused_deliveries,
    drop_refused_deliveries,
    get_refused_delivery,
    list_refused_deliveries,
)
from ledger.api.handlers.reports import list_reports
from ledger.api.handlers.seals import get_event_proof, list_checkpoints
from ledger.api.handlers.subscriptions import get_subscription, set_subscription
from ledger.api.handlers.support_requests import (
    close_support_request,
    get_support_request,
    list_support_requests,
    make_support_request,
)
from ledger.api.handlers.webhook_tokens import (
    create_webhook_token,
    list_webhook_tokens,
    revoke_webhook_token,
)
from ledger.api.http.bodies import provide_operator
from ledger.api.http.guards import provide_caller, require_scope
from ledger.api.http.parameters import check_parameters, services_when_reached
from ledger.api.services import provide_primary, provide_services


def make_routes() -> list[Any]:
    """Return the routes with their guards and dependencies."""
    reads = Router(
        "/",
        route_handlers=[
            get_bill,
            list_findings,
            list_bill_events,
            list_bills,
            list_reports,
            list_events,
            list_unreadable_events,
            list_changes,
            list_missing_events,
            get_reconciliation,
            list_support_requests,
            get_support_request,
            list_labs,
            list_loss_windows,
            list_expected_bills,
            get_subscription,
            get_projection,
            list_checkpoints,
            get_event_proof,
        ],
        guards=[require_scope],
        before_request=check_parameters,
        dependencies={
            "services": Provide(services_when_reached),
            "caller": Provide(provide_caller),
        },
        tags=["read"],
    )
    operations = Router(
        "/",
        route_handlers=[
            waive_missing_event,
            unwaive_missing_event,
            waive_missing_events,
            make_support_request,
            close_support_request,
            close_loss_window,
            expect_bill,
            expect_bills,
            stop_expecting_bill,
            set_subscription,
            import_events,
        ],
        guards=[require_scope],
        before_request=check_parameters,
        dependencies={
            "operator": Provide(provide_operator),
            "caller": Provide(provide_caller),
        },
        tags=["operate"],
    )
    administration = Router(
        "/",
        route_handlers=[
            list_keys,
            create_key,
            rotate_key,
            revoke_key,
            list_webhook_tokens,
            create_webhook_token,
            revoke_webhook_token,
            list_refused_deliveries,
            get_refused_delivery,
            accept_refused_deliveries,
            drop_refused_deliveries,
            erase_body,
            list_account_labs,
            get_coverage,
            check_account,
            subscribe_labs,
            get_token_rotation,
            rotate_token,
        ],
        guards=[require_scope],
        before_request=check_parameters,
        dependencies={
            "services": Provide(provide_primary),
            "operator": Provide(provide_operator),
            "caller": Provide(provide_caller),
        },
        tags=["admin"],
    )
    service = Router(
        "/", route_handlers=[get_liveness, get_readiness, get_metrics], tags=["service"]
    )
    everything = Router(
        "/",
        route_handlers=[reads, operations, administration, service],
        dependencies={"services": Provide(provide_services)},
    )
    return [everything]
