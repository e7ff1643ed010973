"""All routes of the page. Served with the API, never by an address that is for deliveries alone."""

from litestar import Router
from litestar.di import Provide

from ledger.api.services import provide_primary
from ledger.page.assets import get_asset
from ledger.page.bill import BillController
from ledger.page.bills import BillsController
from ledger.page.errors import HANDLERS
from ledger.page.expected import ExpectedBillsController
from ledger.page.guards import provide_caller, provide_operator, require_session
from ledger.page.imports import ImportsController
from ledger.page.labs import LabsController
from ledger.page.live import LiveController
from ledger.page.log import LogController
from ledger.page.login import LoginController
from ledger.page.missing import MissingEventsController
from ledger.page.overview import OverviewController
from ledger.page.refused import RefusedController
from ledger.page.requests import RequestsController
from ledger.page.system import SystemController
from ledger.page.windows import WindowsController


def make_pages() -> Router:
    """Return the routes of the page, with their guards and dependencies."""
    with_session = Router(
        "/",
        route_handlers=[
            OverviewController,
            BillsController,
            BillController,
            MissingEventsController,
            RequestsController,
            ImportsController,
            ExpectedBillsController,
            RefusedController,
            WindowsController,
            LabsController,
            LogController,
            SystemController,
            LiveController,
        ],
        guards=[require_session],
        dependencies={"caller": Provide(provide_caller), "operator": Provide(provide_operator)},
    )
    return Router(
        "/",
        route_handlers=[with_session, LoginController, get_asset],
        dependencies={"services": Provide(provide_primary)},
        exception_handlers=HANDLERS,
    )
