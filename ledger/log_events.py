"""The events of the log: what each means, and what to do about it.

`event` of a line is one of them; a test holds this list to the code.
"""

OF_A_LIBRARY = "message of a library"

EVENTS = {
    OF_A_LIBRARY: "What a library such as Uvicorn says, in its own words: `library`, `message`.",
    "API key created": "Somebody made an API key. Its secret is not logged.",
    "API key revoked": "Somebody ended an API key.",
    "API key rotated": "Somebody gave an API key a new secret.",
    "API keys cannot be read": "The database is away; keys read before stay valid for a while.",
    "LEDGER_ADMIN_KEY is not set: only keys of `ledger keys` can read over HTTP": (
        "Nothing is wrong if there are such keys."
    ),
    "a delivery's callback failed": "A fault of Ledger. The delivery itself is stored. Report it.",
    "a record of the spool is damaged": "Its bytes are at `kept`. The disk may be failing.",
    "a secret can be guessed": "`advice` says which setting to change.",
    "a segment of the spool cannot be removed": "Look at the rights of `LEDGER_SPOOL_DIR`.",
    "a segment of the spool is given up": (
        "The disk did not take a delivery, which went elsewhere or was refused. Look at the disk."
    ),
    "alert given up: check the channel in LEDGER_ALERT_URLS": (
        "A channel did not accept the alert for a day."
    ),
    "alert not sent, will be tried again": "A channel did not accept the alert.",
    "alert sent": "A channel accepted the alert.",
    "another projector leads; waiting for its turn": "It takes over when the other one ends.",
    "append failed": (
        "The database did not take deliveries. They go to the spool, or are refused and sent again."
    ),
    "bill parked": "Its events cannot be folded. `ledger status` lists it.",
    "bills are read one by one": "The quick way to read bills failed and is tried again later.",
    "checkpoint watcher lost the database": "It connects again by itself.",
    "could not keep refused deliveries": "They are tried again, or the line shows a fault.",
    "could not look after the account at Flabs": "It is tried again, or the line shows a fault.",
    "could not look at the account at Flabs": "Flabs does not answer as it should: see `error`.",
    "silent labs could not be judged": "The page says that they are not known, and tries again.",
    "could not look for alerts": "It is tried again, or the line shows a fault.",
    "could not note which tokens were used": "Nothing else suffers.",
    "could not read the webhook tokens": "Those that were read before stay valid.",
    "could not seal": "It is tried again, or the line shows a fault.",
    "database away": "A request was answered with 503.",
    "database away; trying again": "The projector waits for the database.",
    "deliveries can be made durable again": (
        "An outage ended. `refused` deliveries were refused in it and `spooled` went to the spool."
    ),
    "deliveries refused: the webhook token is missing or wrong": (
        "`times` deliveries since the last such line. See `ledger refused list`."
    ),
    "drained the spool of a process that is gone": "Its deliveries are in the log.",
    "folded": "The projector wrote a batch.",
    "how far the state is could not be read": "The page was shown without it.",
    "labs that left the account at Flabs are not given the new webhook token": (
        "`labs` were subscribed. If one still sends, its old token is not dropped."
    ),
    "liveness cannot be recorded now": "It is recorded later.",
    "no delivery could be made durable now": "A rehearsal failed: see `error`.",
    "page failed": "A page was answered with an error of the server: see `error`.",
    "parked bills were folded again": "Somebody asked for it on the page.",
    "ended a session that stood still with a share": (
        "A machine that takes part in a rebuild does nothing: look at it. Others fold its share."
    ),
    "going on with an interrupted rebuild": "What it had folded up to then is not folded again.",
    "projector leads": "This process folds.",
    "projector stopped": "It was asked to stop.",
    "replica away": "A read was answered with 503, as the replica does not answer.",
    "request failed": "A fault of Ledger, or of what it works with. Report it if it is the former.",
    "sealed": "The log is sealed up to `position`.",
    "serving": "The server listens.",
    "starting without having seen the replica": "It is used once it answers.",
    "starting without the database": "The server serves without it, and connects when it answers.",
    "state tables missing: run `ledger rebuild`": "Reads are answered with 503 until then.",
    "stopped": "The server stopped after it was asked to.",
    "stream of changes interrupted": "Clients resume where they were.",
    "that the log was verified could not be recorded": (
        "The verification itself counts; `ledger doctor` does not know of it."
    ),
    "the certificate was loaded again": "New connections get the new one.",
    "the database has no policy to read; using that of the settings": (
        "The database is away, or its schema is old."
    ),
    "the database does not take a spooled delivery": "It is at `kept`; see `ledger import`.",
    "the former certificate stays in use": "The new one cannot be used: see `error`.",
    "the last record of a spool was not finished": (
        "The process was killed before it acknowledged it. What there is lies at `kept`."
    ),
    "the log has gaps: run `ledger verify`": "Positions are missing: the log was damaged.",
    "the sealer could not finish": "The log is not sealed, signed or published: see `error`.",
    "the old webhook tokens were not dropped": "It is tried again.",
    "the overview could not be counted": "The page was shown without numbers.",
    "the projector stands still; trying again": "The state does not move: see `error`.",
    "the schema is newer than this version of Ledger": "Deliveries are taken. Update this process.",
    "the spool cannot be drained": "Its deliveries are safe on disk: see `error`.",
    "the spool cannot be written": "Look at the disk and the rights of `LEDGER_SPOOL_DIR`.",
    "the spool has failed: deliveries are refused while the log takes none": (
        "A fault of Ledger. Restart the server, and report it."
    ),
    "the spool is smaller than it should be": "Make room on the disk.",
    "the webhook tokens of the database are not known": (
        "Only those of `LEDGER_WEBHOOK_TOKENS` are valid until the database answers."
    ),
    "tokens of LEDGER_WEBHOOK_TOKENS are refused, for they were revoked: remove them": (
        "Somebody revoked them; `tokens` says how many there are."
    ),
    "too many connections of one address: the ones that have been idle longest are closed": (
        "A client keeps connections open, or a proxy is not in `LEDGER_TRUSTED_PROXIES`."
    ),
    "too many connections: the ones that have been idle longest are closed": (
        "Raise the limit on open files, or look who connects."
    ),
    "too much incomplete input: the oldest incomplete requests are closed": (
        "Somebody sends many bodies slowly."
    ),
    "webhook token created": "Somebody made a webhook token. Its secret is not logged.",
    "webhook token revoked": "Somebody ended a webhook token.",
    "webhooks of known labs come with a wrong token: see `ledger refused list`": (
        "A subscription at Flabs may hold an old token."
    ),
}
