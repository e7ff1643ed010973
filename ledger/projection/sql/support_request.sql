-- Support requests, as the operators' events record them.

CREATE TABLE support_request (
    lab_id      text        NOT NULL COLLATE "C",
    position    bigint      NOT NULL,
    request     integer     NOT NULL,
    made_at     timestamptz NOT NULL,
    made_by     text        NOT NULL,
    made_by_key text,
    note        text
);

COMMENT ON TABLE support_request IS 'Support requests that were made.';
COMMENT ON COLUMN support_request.lab_id IS 'The only lab that was asked for; empty: all labs.';


CREATE TABLE support_request_window (
    lab_id    text        NOT NULL COLLATE "C",
    position  bigint      NOT NULL,
    nth       integer     NOT NULL,
    request   integer     NOT NULL,
    begins_at timestamptz NOT NULL,
    ends_at   timestamptz NOT NULL,
    labs      text[]      NOT NULL COLLATE "C"
);

COMMENT ON TABLE support_request_window IS 'Loss windows that support requests ask for.';
COMMENT ON COLUMN support_request_window.lab_id IS 'As in support_request.';
COMMENT ON COLUMN support_request_window.nth IS 'Place in the request, from 1.';
COMMENT ON COLUMN support_request_window.labs IS 'Asked for these labs; empty: for every lab.';


CREATE TABLE support_request_closing (
    lab_id    text        NOT NULL COLLATE "C",
    position  bigint      NOT NULL,
    request   integer     NOT NULL,
    closed_at timestamptz NOT NULL,
    closed_by text        NOT NULL,
    reason    text        NOT NULL,
    labs      text[]      NOT NULL COLLATE "C"
);

COMMENT ON TABLE support_request_closing IS
    'Support requests that were closed; the first closing of a request counts.';
COMMENT ON COLUMN support_request_closing.labs IS
    'Closed for these labs, without its windows; empty: as a whole.';


CREATE TABLE loss_window_closing (
    lab_id    text        NOT NULL COLLATE "C",
    position  bigint      NOT NULL,
    begins_at timestamptz NOT NULL,
    ends_at   timestamptz NOT NULL,
    labs      text[]      NOT NULL COLLATE "C",
    closed_at timestamptz NOT NULL,
    closed_by text        NOT NULL,
    reason    text        NOT NULL
);

COMMENT ON TABLE loss_window_closing IS
    'Loss windows that an operator closed apart from a support request.';
COMMENT ON COLUMN loss_window_closing.lab_id IS 'Always empty: labs names the labs.';
COMMENT ON COLUMN loss_window_closing.labs IS 'Closed for these labs; empty: for every lab.';
