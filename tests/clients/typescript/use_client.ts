// Uses the generated types with openapi-fetch against a running server: node use_client.js URL KEY TOKEN LAB
// Prints what came of each step as JSON; a status that is none of the expected ends it with an error.
import createClient from "openapi-fetch";
import type { components, paths } from "./ledger.d.ts";

const [url, adminKey, token, lab] = process.argv.slice(2) as [string, string, string, string];

function bearer(secret: string) {
  return createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${secret}` } });
}

function expected<T>(answer: { data?: T; error?: { detail: string }; response: Response }): T {
  if (answer.data === undefined) {
    throw new Error(`${answer.response.url}: ${answer.response.status} ${answer.error?.detail}`);
  }
  return answer.data;
}

const admin = bearer(adminKey);
const made = expected(
  await admin.POST("/v1/keys", { body: { name: "TypeScript", scope: "operate" } }),
);

const flabs = bearer(token);
const positions: number[] = [];
for (const [eventType, eventTime] of [["bill.created", 1705747800], ["bill.completed", 1705751400]]) {
  const body = {
    labID: lab,
    eventType,
    eventTime,
    data: { billID: "bill/1", billData: { testData: [{ _id: "test_1", status: "completed" }] } },
  };
  const stored = expected(await flabs.POST("/webhooks/flabs", { body }));
  if (stored.outcome !== "spooled") positions.push(stored.position);
}

const ledger = bearer(made.key);
const bill: components["schemas"]["Bill"] = expected(
  await ledger.GET("/v1/labs/{lab_id}/bills/{bill_id}", {
    params: {
      path: { lab_id: lab, bill_id: "bill/1" },
      query: { min_position: Math.max(...positions), wait_ms: 30000 },
    },
  }),
);

const missing = expected(
  await ledger.GET("/v1/missing-events", { params: { query: { lab_id: lab, state: "overdue" } } }),
);
const { bill_id, event_type, test_id } = missing.items[0]!;
const waived = expected(
  await ledger.POST("/v1/missing-events/waive", {
    body: { lab_id: lab, bill_id, event_type, test_id, reason: "a test" },
  }),
);

const unknown = await ledger.GET("/v1/labs/{lab_id}/bills/{bill_id}", {
  params: { path: { lab_id: lab, bill_id: "none" } },
});

console.log(
  JSON.stringify({
    scope: made.scope,
    state: bill.state,
    reports: bill.reports.map((report) => [report.test_id, report.completed_at]),
    missing: missing.items.map((item) => [item.event_type, item.test_id, item.state]),
    waived: [waived.event_type, waived.test_id],
    unknown: unknown.error?.status,
  }),
);
