-- The ledger: what is true about every row of every campaign. Instants are UTC milliseconds since 1970.

CREATE TABLE imports (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    file_name    TEXT   NOT NULL,
    sha256       TEXT   NOT NULL,
    launch       BIGINT NOT NULL,  -- 1, or one more for each --again
    bytes        BIGINT NOT NULL,
    rows_in_file BIGINT NOT NULL,
    state        TEXT   NOT NULL CONSTRAINT import_states CHECK (state IN ('loading', 'loaded')),
    launched_by  TEXT   NOT NULL,
    launched_at  BIGINT NOT NULL,
    owner_id     BIGINT NOT NULL,  -- who loads it
    touched_at   BIGINT NOT NULL,
    sendable     BIGINT NOT NULL DEFAULT 0,  -- rows that are loaded, by what became of them at loading
    invalid      BIGINT NOT NULL DEFAULT 0,
    duplicate    BIGINT NOT NULL DEFAULT 0,
    suppressed   BIGINT NOT NULL DEFAULT 0,
    loaded_at    BIGINT,
    texts_purged_at   BIGINT,
    numbers_purged_at BIGINT,
    CONSTRAINT same_bytes_launch_once UNIQUE (sha256, launch)
);

CREATE TABLE campaigns (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    import_id  BIGINT NOT NULL REFERENCES imports (id),
    name       TEXT   NOT NULL UNIQUE,
    state      TEXT   NOT NULL CONSTRAINT campaign_states CHECK (state IN ('loading', 'active', 'paused', 'cancelled')),
    state_why  TEXT,             -- who paused or cancelled it, and why
    priority   BIGINT NOT NULL DEFAULT 0,
    parent_id  BIGINT REFERENCES campaigns (id),  -- the campaign whose failed rows it retries
    quiet      TEXT,             -- when nobody is texted, as 21:00-08:00
    weekdays   TEXT,             -- when people are texted, as mon-fri
    zone       TEXT,             -- of people whose country's is not known
    rate_us    BIGINT,           -- microseconds for each text; NULL: no limit of its own
    rate_from  BIGINT NOT NULL DEFAULT 0,  -- its texts are spread up to here, in microseconds since 1970
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE INDEX campaigns_of_import ON campaigns (import_id);

CREATE TABLE texts (
    id       INTEGER PRIMARY KEY,
    body     TEXT,              -- until it is purged
    encoding TEXT   NOT NULL CONSTRAINT encodings CHECK (encoding IN ('gsm7', 'ucs2')),
    segments BIGINT NOT NULL
);

-- A run of rows of one campaign that is claimed together. Its rows' ids are id * 512 ... id * 512 + 511.
CREATE TABLE chunks (
    id            INTEGER PRIMARY KEY,
    import_id     BIGINT NOT NULL REFERENCES imports (id),
    campaign_id   BIGINT NOT NULL REFERENCES campaigns (id),
    state         TEXT   NOT NULL CONSTRAINT chunk_states CHECK (state IN ('waiting', 'fed', 'working', 'done')),
    due_at        BIGINT NOT NULL,
    rows          BIGINT NOT NULL DEFAULT 0,  -- those to be sent when it was loaded
    expires_at    BIGINT,          -- not after the first valid_until of its unsent rows; NULL: none has one
    fed_at        BIGINT,
    feeds         BIGINT NOT NULL DEFAULT 0,  -- since the last claim
    owner_id      BIGINT,
    blocked       BIGINT NOT NULL DEFAULT 0,  -- 1: each of its rows waits behind a held row
    batch_len_max BIGINT           -- halved by each 413
);
CREATE INDEX chunks_of_campaign ON chunks (campaign_id, id);
CREATE INDEX chunks_to_do ON chunks (state, campaign_id, due_at) WHERE state <> 'done';
CREATE INDEX chunks_expiring ON chunks (expires_at) WHERE state <> 'done' AND expires_at IS NOT NULL;

-- Each CHECK is judged for each row that is written. What is soonest said comes first, and lists of states are ORs: for each IN of
-- a CHECK or of an index's WHERE SQLite builds a table in memory.
-- A row that is 'attempted' stands as its attempt does: it is being sent, accepted or unknown, and `told_rows` says which. So an answer
-- to a call is written once, not for each of its rows.
CREATE TABLE messages (
    id              INTEGER PRIMARY KEY,
    campaign_id     BIGINT NOT NULL,
    row_number      BIGINT NOT NULL,
    state           TEXT   NOT NULL CONSTRAINT row_states CHECK (state = 'queued' OR state = 'attempted'
        OR state = 'sent' OR state = 'failed' OR state = 'invalid' OR state = 'duplicate' OR state = 'suppressed' OR state = 'accepted'
        OR state = 'scheduled' OR state = 'held' OR state = 'rejected' OR state = 'expired' OR state = 'cancelled'),
    reason          TEXT,
    destination_raw TEXT   NOT NULL,
    destination     BIGINT,
    destination_hash TEXT,  -- in its place once it is purged, and a masked one in place of destination_raw
    sender          TEXT,
    text_id         BIGINT,
    reference       TEXT,
    scheduled_for   BIGINT,
    valid_until     BIGINT,
    not_before      BIGINT,
    attempts        BIGINT NOT NULL DEFAULT 0,
    attempt_id      BIGINT,
    live            BIGINT,  -- 1 while its text may be out and has no sms_id: what an index hangs on is not written anew with each state
    held            BIGINT,  -- 1 while it is held, for the same reason
    sent_via        TEXT   CONSTRAINT calls_that_send CHECK (sent_via IS NULL OR sent_via = 'bulk' OR sent_via = 'send'),
    sms_id          BIGINT,
    id_source       TEXT   CONSTRAINT sources_of_ids CHECK (id_source IS NULL OR id_source = 'list' OR id_source = 'response'),
    gateway_status  TEXT,
    resends         BIGINT NOT NULL DEFAULT 0,
    retry_of        BIGINT,  -- the failed row that it retries
    queued_at       BIGINT,
    attempted_at    BIGINT,
    accepted_at     BIGINT,
    found_at        BIGINT,  -- when a reading of the list showed it first
    checked_at      BIGINT,
    check_at        BIGINT,
    checks          BIGINT NOT NULL DEFAULT 0,
    final_at        BIGINT,
    updated_at      BIGINT NOT NULL,
    CONSTRAINT a_sendable_row_has_number_sender_and_text CHECK
        (((destination IS NOT NULL OR destination_hash IS NOT NULL) AND sender IS NOT NULL AND text_id IS NOT NULL)
         OR state = 'invalid' OR state = 'duplicate' OR state = 'suppressed'),
    CONSTRAINT only_a_final_row_is_purged CHECK (destination_hash IS NULL OR (destination IS NULL AND final_at IS NOT NULL)),
    CONSTRAINT an_attempted_row_has_an_attempt CHECK (state <> 'attempted' OR attempt_id IS NOT NULL),
    CONSTRAINT a_live_row_is_marked CHECK (CASE WHEN state = 'queued' THEN live IS NULL ELSE
        (live IS NOT NULL) = (sms_id IS NULL AND (state = 'attempted' OR state = 'held')) END),
    CONSTRAINT a_held_row_is_marked CHECK ((held IS NOT NULL) = (state = 'held')),
    CONSTRAINT an_sms_id_has_a_source CHECK
        ((sms_id IS NULL AND id_source IS NULL) OR (sms_id IS NOT NULL AND id_source IS NOT NULL)),
    CONSTRAINT a_status_has_an_sms_id CHECK (state = 'queued' OR sms_id IS NOT NULL
        OR (state <> 'sent' AND state <> 'failed' AND state <> 'accepted') OR gateway_status = 'operator'),
    CONSTRAINT a_final_row_has_its_time CHECK (CASE WHEN state = 'queued' THEN final_at IS NULL ELSE
        (state = 'sent' OR state = 'failed' OR state = 'invalid' OR state = 'duplicate' OR state = 'suppressed' OR state = 'rejected'
         OR state = 'expired' OR state = 'cancelled') = (final_at IS NOT NULL) END)
);
CREATE UNIQUE INDEX an_sms_id_is_claimed_once ON messages (sms_id) WHERE sms_id IS NOT NULL;
-- Two open attempts to one number from one sender can't be told apart in the gateway's list.
CREATE UNIQUE INDEX one_open_attempt_per_recipient ON messages (sender, destination) WHERE live IS NOT NULL;
-- Rows that a person decided about without knowing: their texts may be listed yet. So that their state can be left out, those that
-- the gateway refused are in it, too.
CREATE INDEX decided_unfound ON messages (sender, destination)
    WHERE sms_id IS NULL AND attempt_id IS NOT NULL AND final_at IS NOT NULL;
CREATE INDEX held_rows ON messages (campaign_id, id) WHERE held IS NOT NULL;
CREATE UNIQUE INDEX a_row_is_retried_once ON messages (retry_of) WHERE retry_of IS NOT NULL;
CREATE INDEX details_due ON messages (check_at) WHERE check_at IS NOT NULL;

-- A pack is what of a chunk's rows waits to be sent as the file brought it, in one piece, until something touches the first of them:
-- then all of them come into `messages`, and the pack goes, in one commit. A row stands in one of the two.
CREATE TABLE packs (
    chunk_id    INTEGER PRIMARY KEY,
    campaign_id BIGINT NOT NULL,
    packed_at   BIGINT NOT NULL,
    queued      BIGINT NOT NULL,  -- its rows, by state
    scheduled   BIGINT NOT NULL,
    sender      TEXT,             -- of all of its rows, if they wait for nothing and have one sender and one text
    text_id     BIGINT,           -- likewise
    rows        TEXT   NOT NULL   -- JSON: [place in the chunk, row_number, destination, destination_raw unless it is the same digits,
                                  -- reference], and unless all have one text also [.., scheduled_for, valid_until, sender, text_id, state]
);
CREATE INDEX packs_of_campaign ON packs (campaign_id, queued, scheduled);

CREATE TABLE owners (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    kind       TEXT   NOT NULL,
    host       TEXT   NOT NULL,
    pid        BIGINT NOT NULL,
    lock       TEXT   NOT NULL,  -- what proves that it lives: a lock file's name, or the start of the server that holds its lock
    started_at BIGINT NOT NULL,
    seen_at    BIGINT NOT NULL,
    ended_at   BIGINT,
    ended_how  TEXT
);
CREATE INDEX owners_alive ON owners (id) WHERE ended_at IS NULL;

-- One gateway call that sends, made once. `row_ids` names its destinations before a byte leaves.
CREATE TABLE attempts (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    campaign_id BIGINT NOT NULL,
    chunk_id    BIGINT NOT NULL,
    sender      TEXT   NOT NULL,
    text_id     BIGINT NOT NULL,
    sent_via    TEXT   NOT NULL CONSTRAINT attempts_send CHECK (sent_via IN ('send', 'bulk')),
    state       TEXT   NOT NULL CONSTRAINT attempt_states CHECK (state IN
        ('formed', 'sending', 'accepted', 'unknown', 'released', 'refused', 'settled')),
    owner_id    BIGINT NOT NULL REFERENCES owners (id),
    recipients  BIGINT NOT NULL,
    first_row   BIGINT NOT NULL,  -- all of its rows are between these two
    last_row    BIGINT NOT NULL,
    row_ids     TEXT   NOT NULL,
    formed_at   BIGINT NOT NULL,
    sending_at  BIGINT,
    ended_at    BIGINT,  -- when its sender was known to be done with it
    outcome     TEXT,
    look_at     BIGINT,
    looks       BIGINT NOT NULL DEFAULT 0,
    looked_at   BIGINT,  -- the last look that counts
    absent      TEXT     -- the row ids that it did not find
);
CREATE INDEX attempts_open ON attempts (sender, id) WHERE state IN ('formed', 'sending', 'accepted', 'unknown');
CREATE INDEX attempts_looked ON attempts (sender, look_at) WHERE looks > 0 AND look_at IS NOT NULL;
CREATE INDEX attempts_of_campaign ON attempts (campaign_id, chunk_id);
CREATE INDEX attempts_by_time ON attempts (sender, sending_at);
CREATE INDEX attempts_sending ON attempts (sender, sending_at) WHERE state = 'sending';
CREATE INDEX attempts_formed ON attempts (formed_at);  -- which texts a plan looks at

-- Gateway list windows that were read and still hold pending rows. Seconds of the gateway's clock, both ends included.
CREATE TABLE windows (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    sender  TEXT   NOT NULL,
    since   BIGINT NOT NULL,
    until   BIGINT NOT NULL,
    listed  BIGINT NOT NULL,
    looks   BIGINT NOT NULL,
    look_at BIGINT NOT NULL
);

CREATE TABLE cursors (
    sender       TEXT   PRIMARY KEY,
    swept_to     BIGINT NOT NULL,  -- seconds of the gateway's clock
    first_look_ms BIGINT NOT NULL
);

-- What was read of the gateway's list, for the stories of rows: one line for each complete reading.
CREATE TABLE readings (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    sender  TEXT   NOT NULL,
    row_id  BIGINT,           -- only the number of this row was asked for
    since   BIGINT NOT NULL,  -- seconds of the gateway's clock, both included
    until   BIGINT NOT NULL,
    skew_ms BIGINT NOT NULL,  -- the gateway's clock minus the ledger's
    began_at BIGINT NOT NULL, -- what it shows is applied from then
    read_at BIGINT NOT NULL,  -- to then
    listed  BIGINT,           -- how many texts it showed; not known of one that broke off, or while which the list moved
    found   BIGINT NOT NULL   -- rows that got their sms_id by it
);
CREATE INDEX readings_of_sender ON readings (sender, until);

-- Listed texts from our senders that no attempt explains.
CREATE TABLE unexplained (
    sms_id      INTEGER PRIMARY KEY,
    sender      TEXT   NOT NULL,
    destination TEXT   NOT NULL,
    listed_time TEXT   NOT NULL,
    seen_at     BIGINT NOT NULL
);

CREATE TABLE learned (
    name  TEXT   PRIMARY KEY,
    value BIGINT NOT NULL,
    at    BIGINT NOT NULL
);

CREATE TABLE tokens (
    id                  INTEGER PRIMARY KEY CONSTRAINT one_token_row CHECK (id = 1),
    generation          BIGINT NOT NULL,
    sealed              BLOB,
    issued_at           BIGINT,
    expires_at          BIGINT,
    phase               TEXT   NOT NULL CONSTRAINT token_phases CHECK (phase IN ('none', 'ready', 'refreshing', 'retrying', 'granting', 'burned')),
    phase_by            TEXT,
    phase_at            BIGINT NOT NULL,
    password_granted_at BIGINT,
    password_grants     BIGINT NOT NULL DEFAULT 0,
    credentials         BLOB,  -- keyed hash of the client and the user that the row was last used with
    trouble_kind        TEXT   CONSTRAINT kinds_of_token_trouble CHECK (trouble_kind IN ('refused', 'unanswered')),
    trouble             TEXT
);
INSERT INTO tokens (id, generation, phase, phase_at) VALUES (1, 0, 'none', 0);

CREATE TABLE senders (
    sender     TEXT   PRIMARY KEY,
    status     TEXT   NOT NULL,
    checked_at BIGINT NOT NULL
);

-- Most texts in a time from a sender, in all campaigns.
CREATE TABLE sender_rates (
    sender    TEXT   PRIMARY KEY,
    rate_us   BIGINT NOT NULL,            -- microseconds for each text
    rate_from BIGINT NOT NULL DEFAULT 0   -- its texts are spread up to here, in microseconds since 1970
);

CREATE TABLE suppressions (
    destination BIGINT NOT NULL,
    sender      TEXT   NOT NULL DEFAULT '',  -- '' means from every sender
    made_by     TEXT   NOT NULL DEFAULT 'operator'
        CONSTRAINT makers_of_opt_outs CHECK (made_by IN ('operator', 'message')),
    sms_id      BIGINT,            -- the message that made it
    reason      TEXT   NOT NULL,
    added_by    TEXT   NOT NULL,
    added_at    BIGINT NOT NULL,
    PRIMARY KEY (destination, sender, made_by)
);

-- What people wrote to us. Its texts and numbers are purged like those of rows.
CREATE TABLE inbound (
    sms_id   INTEGER PRIMARY KEY,
    source   TEXT,              -- who wrote, as listed
    person   BIGINT,            -- the same as a number, if it is one
    receiver TEXT   NOT NULL,   -- to whom, as listed
    sender   TEXT   NOT NULL DEFAULT '',  -- the sender of ours that this is, '' if it is none
    text     TEXT,
    keyword  TEXT   CONSTRAINT keywords CHECK (keyword IN ('stop', 'start')),
    at       BIGINT NOT NULL,   -- seconds of the gateway's clock
    seen_at  BIGINT NOT NULL
);
CREATE INDEX inbound_by_time ON inbound (at);
CREATE INDEX inbound_keywords ON inbound (person, sender, at) WHERE keyword IS NOT NULL;

-- Keys that the ledger makes for itself.
CREATE TABLE keys (
    name  TEXT PRIMARY KEY,
    value BLOB NOT NULL
);

CREATE TABLE leases (
    name     TEXT   PRIMARY KEY,
    owner_id BIGINT NOT NULL,
    until    BIGINT NOT NULL
);

-- A ledger that was restored sends nothing before the gateway's list was read back.
CREATE TABLE quarantine (
    id       BIGINT PRIMARY KEY CONSTRAINT one_quarantine_row CHECK (id = 1),
    ledger   TEXT   NOT NULL,  -- names this ledger and its copies; another one when a quarantine ends
    started  BIGINT NOT NULL DEFAULT 0,  -- calls that were begun, in the order of their commits
    opt_outs BIGINT NOT NULL DEFAULT 0,  -- how often any were entered or changed: as long as it stays, a claim's look at them holds
    since    BIGINT,           -- the list is read back from here; NULL: there is no quarantine
    began_at BIGINT,
    began_by TEXT,
    why      TEXT,
    read_at  BIGINT            -- when the last complete reading began
);
INSERT INTO quarantine (id, ledger) VALUES (1, lower(hex(randomblob(16))));
CREATE TRIGGER opt_outs_are_counted AFTER INSERT ON suppressions
BEGIN
    UPDATE quarantine SET opt_outs = opt_outs + 1;
END;
CREATE TRIGGER changed_opt_outs_are_counted AFTER UPDATE ON suppressions
BEGIN
    UPDATE quarantine SET opt_outs = opt_outs + 1;
END;

-- The oldest schema whose programs still work with this one. A migration that takes something away raises it.
CREATE TABLE schema_floor (
    oldest BIGINT NOT NULL
);
INSERT INTO schema_floor (oldest) VALUES (1);

-- Append-only.
CREATE TABLE events (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          BIGINT NOT NULL,
    kind        TEXT   NOT NULL,
    who         TEXT   NOT NULL,
    import_id   BIGINT,
    campaign_id BIGINT,
    row_id      BIGINT,
    attempt_id  BIGINT,
    row_count   BIGINT,            -- how many rows it is about
    detail      TEXT   NOT NULL,
    reason      TEXT               -- the words of who did it
);
CREATE INDEX events_of_campaign ON events (campaign_id, id);

CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN
    SELECT raise(ABORT, 'events are append-only');
END;
CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT raise(ABORT, 'events are append-only');
END;

-- The rows of packs, as they will come into `messages`.
CREATE VIEW packed_rows AS
SELECT p.chunk_id, p.chunk_id * 512 + (r.value->>0) AS id, p.campaign_id, (r.value->>1) AS row_number, coalesce((r.value->>9), 'queued') AS state,
       NULL AS reason, coalesce((r.value->>3), CAST((r.value->>2) AS TEXT)) AS destination_raw, (r.value->>2) AS destination,
       NULL AS destination_hash, coalesce((r.value->>7), p.sender) AS sender, coalesce((r.value->>8), p.text_id) AS text_id,
       (r.value->>4) AS reference, (r.value->>5) AS scheduled_for, (r.value->>6) AS valid_until, NULL AS not_before, 0 AS attempts,
       NULL AS attempt_id, NULL AS live, NULL AS sent_via, NULL AS sms_id, NULL AS id_source, NULL AS gateway_status, 0 AS resends,
       NULL AS retry_of, p.packed_at AS queued_at, NULL AS attempted_at, NULL AS accepted_at, NULL AS found_at, NULL AS checked_at,
       NULL AS check_at, 0 AS checks, NULL AS final_at, p.packed_at AS updated_at
FROM packs p CROSS JOIN json_each(p.rows) r;

-- The rows of `messages` with what their attempts tell of them.
CREATE VIEW told_rows AS
SELECT id, campaign_id, row_number,
       CASE WHEN m.state <> 'attempted' THEN m.state ELSE coalesce(
           (SELECT CASE WHEN a.state = 'formed' OR a.state = 'sending' THEN 'sending' WHEN a.state = 'accepted' THEN 'accepted' END
            FROM attempts a WHERE a.id = m.attempt_id), 'unknown') END AS state,
       CASE WHEN m.state <> 'attempted' THEN m.reason ELSE
           (SELECT a.outcome FROM attempts a WHERE a.id = m.attempt_id AND a.state = 'unknown') END AS reason,
       destination_raw, destination, destination_hash, sender, text_id, reference, scheduled_for, valid_until, not_before, attempts,
       attempt_id, live, sent_via, sms_id, id_source, gateway_status, resends, retry_of, queued_at, attempted_at,
       coalesce(m.accepted_at, (SELECT a.ended_at FROM attempts a WHERE a.id = m.attempt_id AND a.outcome = 'accepted')) AS accepted_at,
       found_at, checked_at, check_at, checks, final_at,
       CASE WHEN m.state <> 'attempted' THEN m.updated_at ELSE coalesce(
           (SELECT a.ended_at FROM attempts a WHERE a.id = m.attempt_id AND a.state = 'accepted'), m.updated_at) END AS updated_at
FROM messages m;

-- All rows, wherever they stand. Not for single ones: it opens every pack.
CREATE VIEW all_rows AS
SELECT id, campaign_id, row_number, state, reason, destination_raw, destination, destination_hash, sender, text_id, reference,
       scheduled_for, valid_until, not_before, attempts, attempt_id, live, sent_via, sms_id, id_source, gateway_status, resends,
       retry_of, queued_at, attempted_at, accepted_at, found_at, checked_at, check_at, checks, final_at, updated_at
FROM told_rows
UNION ALL
SELECT id, campaign_id, row_number, state, reason, destination_raw, destination, destination_hash, sender, text_id, reference,
       scheduled_for, valid_until, not_before, attempts, attempt_id, live, sent_via, sms_id, id_source, gateway_status, resends,
       retry_of, queued_at, attempted_at, accepted_at, found_at, checked_at, check_at, checks, final_at, updated_at
FROM packed_rows;

-- The contract for analysts. CROSS JOIN keeps the order of the tables: campaign, its chunks, their rows.

CREATE VIEW delivery_reports AS
SELECT c.name AS campaign,
       m.row_number,
       m.reference,
       m.destination_raw,
       CASE WHEN m.destination_hash IS NULL THEN CAST(m.destination AS TEXT) ELSE m.destination_raw END AS destination,
       m.sender,
       t.body AS text,
       t.encoding,
       t.segments,
       m.state,
       m.reason,
       m.attempts,
       m.sent_via,
       m.sms_id AS gateway_sms_id,
       m.gateway_status,
       m.id_source,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.scheduled_for / 1000.0, 'unixepoch') AS scheduled_for,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.valid_until / 1000.0, 'unixepoch') AS valid_until,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.queued_at / 1000.0, 'unixepoch') AS queued_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.attempted_at / 1000.0, 'unixepoch') AS attempted_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.accepted_at / 1000.0, 'unixepoch') AS accepted_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.checked_at / 1000.0, 'unixepoch') AS checked_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.final_at / 1000.0, 'unixepoch') AS final_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.updated_at / 1000.0, 'unixepoch') AS updated_at
FROM campaigns c
CROSS JOIN chunks k ON k.campaign_id = c.id
CROSS JOIN told_rows m ON m.id BETWEEN k.id * 512 AND k.id * 512 + 511
LEFT JOIN texts t ON t.id = m.text_id
UNION ALL
SELECT c.name AS campaign,
       m.row_number,
       m.reference,
       m.destination_raw,
       CASE WHEN m.destination_hash IS NULL THEN CAST(m.destination AS TEXT) ELSE m.destination_raw END AS destination,
       m.sender,
       t.body AS text,
       t.encoding,
       t.segments,
       m.state,
       m.reason,
       m.attempts,
       m.sent_via,
       m.sms_id AS gateway_sms_id,
       m.gateway_status,
       m.id_source,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.scheduled_for / 1000.0, 'unixepoch') AS scheduled_for,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.valid_until / 1000.0, 'unixepoch') AS valid_until,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.queued_at / 1000.0, 'unixepoch') AS queued_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.attempted_at / 1000.0, 'unixepoch') AS attempted_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.accepted_at / 1000.0, 'unixepoch') AS accepted_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.checked_at / 1000.0, 'unixepoch') AS checked_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.final_at / 1000.0, 'unixepoch') AS final_at,
       strftime('%Y-%m-%dT%H:%M:%fZ', m.updated_at / 1000.0, 'unixepoch') AS updated_at
FROM campaigns c
CROSS JOIN chunks k ON k.campaign_id = c.id
CROSS JOIN packed_rows m ON m.chunk_id = k.id
LEFT JOIN texts t ON t.id = m.text_id;

CREATE VIEW campaign_summary AS
SELECT c.name AS campaign,
       c.state AS campaign_state,
       i.file_name,
       i.launched_by,
       strftime('%Y-%m-%dT%H:%M:%fZ', i.launched_at / 1000.0, 'unixepoch') AS launched_at,
       count(m.id) + coalesce(packed.queued + packed.scheduled, 0) AS rows,
       count(m.id) FILTER (WHERE m.state = 'invalid') AS invalid,
       count(m.id) FILTER (WHERE m.state = 'duplicate') AS duplicate,
       count(m.id) FILTER (WHERE m.state = 'suppressed') AS suppressed,
       count(m.id) FILTER (WHERE m.state = 'scheduled') + coalesce(packed.scheduled, 0) AS scheduled,
       count(m.id) FILTER (WHERE m.state = 'queued') + coalesce(packed.queued, 0) AS queued,
       count(m.id) FILTER (WHERE a.state = 'formed' OR a.state = 'sending') AS sending,
       count(m.id) FILTER (WHERE m.state = 'attempted' AND (a.id IS NULL
           OR (a.state <> 'formed' AND a.state <> 'sending' AND a.state <> 'accepted'))) AS unknown,
       count(m.id) FILTER (WHERE m.state = 'held') AS held,
       count(m.id) FILTER (WHERE m.state = 'accepted' OR a.state = 'accepted') AS accepted,
       count(m.id) FILTER (WHERE m.state = 'sent') AS sent,
       count(m.id) FILTER (WHERE m.state = 'failed') AS failed,
       count(m.id) FILTER (WHERE m.state = 'rejected') AS rejected,
       count(m.id) FILTER (WHERE m.state = 'expired') AS expired,
       count(m.id) FILTER (WHERE m.state = 'cancelled') AS cancelled
FROM campaigns c
JOIN imports i ON i.id = c.import_id
LEFT JOIN (SELECT campaign_id, sum(queued) AS queued, sum(scheduled) AS scheduled FROM packs GROUP BY campaign_id) packed
    ON packed.campaign_id = c.id
LEFT JOIN chunks k ON k.campaign_id = c.id
LEFT JOIN messages m ON m.id BETWEEN k.id * 512 AND k.id * 512 + 511
LEFT JOIN attempts a ON a.id = m.attempt_id AND m.state = 'attempted'
GROUP BY c.id, c.name, c.state, i.file_name, i.launched_by, i.launched_at, packed.queued, packed.scheduled;

CREATE VIEW failure_reasons AS
SELECT c.name AS campaign, m.state, coalesce(m.reason, '') AS reason, count(*) AS rows
FROM campaigns c
CROSS JOIN chunks k ON k.campaign_id = c.id
CROSS JOIN messages m ON m.id BETWEEN k.id * 512 AND k.id * 512 + 511
WHERE m.state IN ('invalid', 'duplicate', 'suppressed', 'held', 'failed', 'rejected', 'expired', 'cancelled')
GROUP BY c.name, m.state, coalesce(m.reason, '');

CREATE VIEW hourly_throughput AS
SELECT strftime('%Y-%m-%dT%H:00:00Z', m.accepted_at / 1000, 'unixepoch') AS hour,
       c.name AS campaign,
       count(*) AS accepted,
       count(*) FILTER (WHERE m.state = 'sent') AS sent,
       count(*) FILTER (WHERE m.state = 'failed') AS failed
FROM campaigns c
CROSS JOIN chunks k ON k.campaign_id = c.id
CROSS JOIN told_rows m ON m.id BETWEEN k.id * 512 AND k.id * 512 + 511
WHERE m.accepted_at IS NOT NULL
GROUP BY 1, 2;
