-- The journal of a cluster. All that is changed goes through one of the two functions, each a transaction of one statement:
-- no lock is ever held while the server waits for a client that may be gone.

SELECT pg_advisory_xact_lock(7236589);

CREATE TABLE IF NOT EXISTS orion_leader (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder bytea NOT NULL,
    address text NOT NULL,
    expires timestamptz NOT NULL
);
INSERT INTO orion_leader (holder, address, expires) VALUES ('', '', '-infinity') ON CONFLICT DO NOTHING;

-- Who may append, and where.
CREATE TABLE IF NOT EXISTS orion_journal (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    holder bytea NOT NULL,
    next bigint NOT NULL
);
INSERT INTO orion_journal (holder, next) VALUES ('', 0) ON CONFLICT DO NOTHING;

CREATE TABLE IF NOT EXISTS orion_snapshot (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    next bigint NOT NULL,
    bytes bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS orion_records (place bigint PRIMARY KEY, bytes bytea NOT NULL, is_submission boolean NOT NULL);
CREATE TABLE IF NOT EXISTS orion_ended (job bigint PRIMARY KEY, bytes bytea NOT NULL);
CREATE TABLE IF NOT EXISTS orion_results (job bigint PRIMARY KEY, bytes bytea NOT NULL);
CREATE TABLE IF NOT EXISTS orion_terms (term bytea, job bigint, PRIMARY KEY (term, job));
CREATE TABLE IF NOT EXISTS orion_keys (key bytea PRIMARY KEY, job bigint NOT NULL);
CREATE TABLE IF NOT EXISTS orion_due (due bigint, job bigint, PRIMARY KEY (due, job));

CREATE TABLE IF NOT EXISTS orion_files (file bigint PRIMARY KEY, bytes bytea NOT NULL);
-- What is too large for a row, in pieces. On its way in it has a name of its own, and the time of the last piece.
CREATE TABLE IF NOT EXISTS orion_contents (
    address bytea, place int, bytes bytea NOT NULL, staged timestamptz, PRIMARY KEY (address, place)
);
CREATE INDEX IF NOT EXISTS orion_contents_staged ON orion_contents (staged) WHERE staged IS NOT NULL;
CREATE TABLE IF NOT EXISTS orion_keepers (address bytea, keeper bigint, PRIMARY KEY (address, keeper));

-- Takes the lead where nobody's lease runs, or holds it on; whether the caller has it. The clock is the server's.
CREATE OR REPLACE FUNCTION orion_lead_1(who bytea, at text, lease interval) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    UPDATE orion_leader SET holder = who, address = at, expires = clock_timestamp() + lease
        WHERE holder = who OR expires < clock_timestamp();
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- From here on nobody else appends: an append that is under way is waited for.
    UPDATE orion_journal SET holder = who WHERE holder <> who;
    RETURN true;
END $$;

-- Appends as a whole, where the caller leads and the journal ends there; else the place where it ends. Done: -1.
CREATE OR REPLACE FUNCTION orion_append_2(
    who bytea, expected bigint, records bytea[], submissions boolean[],
    ended_jobs bigint[], ended bytea[], result_jobs bigint[], results bytea[],
    no_terms bytea[], no_term_jobs bigint[], terms bytea[], term_jobs bigint[],
    keys bytea[], key_jobs bigint[],
    due bigint[], due_jobs bigint[], not_due bigint[], not_due_jobs bigint[],
    forgotten bigint[], forgotten_keys bytea[], below bigint, snapshot bytea,
    incoming bytea[], incoming_addresses bytea[], kept bytea[], keepers bigint[],
    file_numbers bigint[], files bytea[], unneeded bytea[]
) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    UPDATE orion_journal SET next = expected + cardinality(records) WHERE next = expected AND holder = who;
    IF NOT FOUND THEN
        RETURN (SELECT next FROM orion_journal);
    END IF;
    INSERT INTO orion_records
        SELECT expected + r.place - 1, r.bytes, r.is_submission
        FROM unnest(records, submissions) WITH ORDINALITY AS r (bytes, is_submission, place);
    INSERT INTO orion_ended SELECT * FROM unnest(ended_jobs, ended)
        ON CONFLICT (job) DO UPDATE SET bytes = excluded.bytes;
    INSERT INTO orion_results SELECT * FROM unnest(result_jobs, results)
        ON CONFLICT (job) DO UPDATE SET bytes = excluded.bytes;
    DELETE FROM orion_terms t USING unnest(no_terms, no_term_jobs) AS g (term, job) WHERE t.term = g.term AND t.job = g.job;
    INSERT INTO orion_terms SELECT * FROM unnest(terms, term_jobs) ON CONFLICT DO NOTHING;
    INSERT INTO orion_keys SELECT * FROM unnest(keys, key_jobs) ON CONFLICT (key) DO UPDATE SET job = excluded.job;
    FOR i IN 1 .. cardinality(incoming) LOOP
        IF EXISTS (SELECT FROM orion_contents WHERE address = incoming_addresses[i]) THEN
            DELETE FROM orion_contents WHERE address = incoming[i];
        ELSE
            UPDATE orion_contents SET address = incoming_addresses[i], staged = NULL WHERE address = incoming[i];
            IF NOT FOUND THEN
                RAISE EXCEPTION 'what was staged has been swept';
            END IF;
        END IF;
    END LOOP;
    INSERT INTO orion_keepers SELECT * FROM unnest(kept, keepers) ON CONFLICT DO NOTHING;
    INSERT INTO orion_files SELECT * FROM unnest(file_numbers, files);
    INSERT INTO orion_due SELECT * FROM unnest(due, due_jobs) ON CONFLICT DO NOTHING;
    DELETE FROM orion_due d USING unnest(not_due, not_due_jobs) AS g (due, job) WHERE d.due = g.due AND d.job = g.job;
    IF cardinality(forgotten) > 0 THEN
        DELETE FROM orion_records WHERE place = ANY (forgotten);
        DELETE FROM orion_ended WHERE job = ANY (forgotten);
        DELETE FROM orion_results WHERE job = ANY (forgotten);
        DELETE FROM orion_files WHERE file = ANY (forgotten);
        DELETE FROM orion_keys WHERE key = ANY (forgotten_keys) AND job = ANY (forgotten);
    END IF;
    IF cardinality(unneeded) > 0 THEN
        DELETE FROM orion_keepers WHERE keeper = ANY (forgotten) AND address = ANY (unneeded);
        DELETE FROM orion_contents c WHERE c.address = ANY (unneeded)
            AND NOT EXISTS (SELECT FROM orion_keepers k WHERE k.address = c.address);
    END IF;
    IF snapshot IS NOT NULL THEN
        DELETE FROM orion_records
            WHERE place >= coalesce((SELECT next FROM orion_snapshot), 0) AND place < below AND NOT is_submission;
        INSERT INTO orion_snapshot (next, bytes) VALUES (below, snapshot)
            ON CONFLICT (one) DO UPDATE SET next = excluded.next, bytes = excluded.bytes;
    END IF;
    -- Those that follow look at once; where it does not reach them they look all the same.
    NOTIFY orion_journal;
    RETURN -1;
END $$;
