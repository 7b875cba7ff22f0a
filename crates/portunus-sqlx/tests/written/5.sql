SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE public.portunus_bulk (
    id text NOT NULL COLLATE pg_catalog."C",
    step bigint NOT NULL,
    started_at bigint NOT NULL,
    ended_at bigint,
    operation text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.portunus_deleted (
    key_id text NOT NULL COLLATE pg_catalog."C",
    tenant_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.portunus_digests (
    digest bytea NOT NULL,
    scheme text NOT NULL COLLATE pg_catalog."C",
    key_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.portunus_event_parties (
    who text NOT NULL COLLATE pg_catalog."C",
    place bigint NOT NULL
);
CREATE TABLE public.portunus_events (
    place bigint NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    at bigint NOT NULL,
    action text NOT NULL COLLATE pg_catalog."C",
    outcome text NOT NULL COLLATE pg_catalog."C",
    tenant_id text COLLATE pg_catalog."C",
    key_id text COLLATE pg_catalog."C",
    event text NOT NULL COLLATE pg_catalog."C"
);
ALTER TABLE public.portunus_events ALTER COLUMN place ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.portunus_events_place_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.portunus_keys (
    id text NOT NULL COLLATE pg_catalog."C",
    scheme text NOT NULL COLLATE pg_catalog."C",
    digest bytea NOT NULL,
    family text NOT NULL COLLATE pg_catalog."C",
    version bigint NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    environment text NOT NULL COLLATE pg_catalog."C",
    tenant_id text NOT NULL COLLATE pg_catalog."C",
    user_id text COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    description text COLLATE pg_catalog."C",
    masked text NOT NULL COLLATE pg_catalog."C",
    created_at bigint NOT NULL,
    not_before bigint,
    expires_at bigint,
    enabled bigint NOT NULL,
    revoked_at bigint,
    may_be_primary bigint NOT NULL,
    record text NOT NULL COLLATE pg_catalog."C",
    signing bytea,
    used_on bigint DEFAULT 0 NOT NULL
);
CREATE TABLE public.portunus_outbox (
    place bigint NOT NULL,
    what text NOT NULL COLLATE pg_catalog."C"
);
ALTER TABLE public.portunus_outbox ALTER COLUMN place ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.portunus_outbox_place_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE public.portunus_primaries (
    owner_kind text NOT NULL COLLATE pg_catalog."C",
    owner_tenant text NOT NULL COLLATE pg_catalog."C",
    owner_user text NOT NULL COLLATE pg_catalog."C",
    key_id text NOT NULL COLLATE pg_catalog."C"
);
CREATE TABLE public.portunus_schema (
    version bigint NOT NULL,
    oldest bigint
);
CREATE TABLE public.portunus_usage (
    key_id text NOT NULL COLLATE pg_catalog."C",
    uses bigint NOT NULL,
    last_used_at bigint NOT NULL,
    last_ip text COLLATE pg_catalog."C"
);
CREATE TABLE public.portunus_usage_by_hour (
    key_id text NOT NULL COLLATE pg_catalog."C",
    start bigint NOT NULL,
    uses bigint NOT NULL
);
INSERT INTO public.portunus_bulk VALUES ('b_open', 1, 3000000, NULL, '{"id":"b_open","step":1,"started_at":{"secs_since_epoch":3000,"nanos_since_epoch":0},"ended_at":null,"done":500,"left":7,"failed":0,"failures":[],"plan":""}');
INSERT INTO public.portunus_deleted VALUES ('k_deleted', 'acme');
INSERT INTO public.portunus_digests VALUES ('\x0100000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_active');
INSERT INTO public.portunus_digests VALUES ('\x0200000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_disabled');
INSERT INTO public.portunus_digests VALUES ('\x0300000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_revoked');
INSERT INTO public.portunus_digests VALUES ('\x0400000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_expired');
INSERT INTO public.portunus_digests VALUES ('\x0500000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_not_yet');
INSERT INTO public.portunus_digests VALUES ('\x0600000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_deleted');
INSERT INTO public.portunus_digests VALUES ('\x0700000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_rotated');
INSERT INTO public.portunus_digests VALUES ('\x0800000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_successor');
INSERT INTO public.portunus_digests VALUES ('\x0900000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_rehashed');
INSERT INTO public.portunus_digests VALUES ('\x0a00000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_of_user');
INSERT INTO public.portunus_digests VALUES ('\x0b00000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_token');
INSERT INTO public.portunus_digests VALUES ('\x0c00000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_foreign');
INSERT INTO public.portunus_digests VALUES ('\x6d00000007070707070707070707070707070707070707070707070707070707', 'sha256', 'k_rehashed');
INSERT INTO public.portunus_events OVERRIDING SYSTEM VALUE VALUES (1, '00000000000000000000000000000001', 1001000, 'request', 'OK', 'acme', 'k_revoked', '{"id":"00000000000000000000000000000001","at":"1970-01-01T00:16:41.000Z","action":"request","outcome":"OK","tenant_id":"acme","key_id":"k_revoked"}');
INSERT INTO public.portunus_events OVERRIDING SYSTEM VALUE VALUES (2, '00000000000000000000000000000002', 1002000, 'key.revoke', 'OK', 'acme', 'k_revoked', '{"id":"00000000000000000000000000000002","at":"1970-01-01T00:16:42.000Z","action":"key.revoke","outcome":"OK","tenant_id":"acme","key_id":"k_revoked"}');
INSERT INTO public.portunus_keys VALUES ('k_disabled', 'sha256', '\x0200000007070707070707070707070707070707070707070707070707070707', 'k_disabled', 1, 'app', 'live', 'acme', NULL, 'k_disabled', NULL, '…', 1000000, NULL, NULL, 0, NULL, 1, '{"id":"k_disabled","family":"k_disabled","version":1,"name":"k_disabled","description":null,"kind":"app","environment":"live","owner":{"tenant_id":"acme"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":null,"enabled":false,"revoked":null,"predecessor":null,"successor":null,"origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_keys VALUES ('k_revoked', 'sha256', '\x0300000007070707070707070707070707070707070707070707070707070707', 'k_revoked', 1, 'app', 'live', 'acme', NULL, 'k_revoked', NULL, '…', 1000000, NULL, NULL, 1, 2000000, 1, '{"id":"k_revoked","family":"k_revoked","version":1,"name":"k_revoked","description":null,"kind":"app","environment":"live","owner":{"tenant_id":"acme"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":null,"enabled":true,"revoked":{"at":{"secs_since_epoch":2000,"nanos_since_epoch":0},"reason":"lost"},"predecessor":null,"successor":null,"origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_keys VALUES ('k_expired', 'sha256', '\x0400000007070707070707070707070707070707070707070707070707070707', 'k_expired', 1, 'app', 'live', 'acme', NULL, 'k_expired', NULL, '…', 1000000, NULL, 2000000, 1, NULL, 1, '{"id":"k_expired","family":"k_expired","version":1,"name":"k_expired","description":null,"kind":"app","environment":"live","owner":{"tenant_id":"acme"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":{"secs_since_epoch":2000,"nanos_since_epoch":0},"enabled":true,"revoked":null,"predecessor":null,"successor":null,"origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_keys VALUES ('k_not_yet', 'sha256', '\x0500000007070707070707070707070707070707070707070707070707070707', 'k_not_yet', 1, 'app', 'live', 'acme', NULL, 'k_not_yet', NULL, '…', 1000000, 1000000000, NULL, 1, NULL, 1, '{"id":"k_not_yet","family":"k_not_yet","version":1,"name":"k_not_yet","description":null,"kind":"app","environment":"live","owner":{"tenant_id":"acme"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":{"secs_since_epoch":1000000,"nanos_since_epoch":0},"expires_at":null,"enabled":true,"revoked":null,"predecessor":null,"successor":null,"origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_keys VALUES ('k_rotated', 'sha256', '\x0700000007070707070707070707070707070707070707070707070707070707', 'k_rotated', 1, 'app', 'live', 'acme', NULL, 'k_rotated', NULL, '…', 1000000, NULL, 1000000000, 1, NULL, 1, '{"id":"k_rotated","family":"k_rotated","version":1,"name":"k_rotated","description":null,"kind":"app","environment":"live","owner":{"tenant_id":"acme"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":{"secs_since_epoch":1000000,"nanos_since_epoch":0},"enabled":true,"revoked":null,"predecessor":null,"successor":"k_successor","origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_keys VALUES ('k_successor', 'sha256', '\x0800000007070707070707070707070707070707070707070707070707070707', 'k_successor', 1, 'app', 'live', 'acme', NULL, 'k_successor', NULL, '…', 1000000, NULL, NULL, 1, NULL, 1, '{"id":"k_successor","family":"k_successor","version":1,"name":"k_successor","description":null,"kind":"app","environment":"live","owner":{"tenant_id":"acme"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":null,"enabled":true,"revoked":null,"predecessor":"k_rotated","successor":null,"origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_keys VALUES ('k_of_user', 'sha256', '\x0a00000007070707070707070707070707070707070707070707070707070707', 'k_of_user', 1, 'app', 'live', 'acme', '7D444840-9DC0-11D1-B245-5FFDCE74FAD2', 'k_of_user', NULL, '…', 1000000, NULL, NULL, 1, NULL, 1, '{"id":"k_of_user","family":"k_of_user","version":1,"name":"k_of_user","description":null,"kind":"app","environment":"live","owner":{"tenant_id":"acme","user_id":"7D444840-9DC0-11D1-B245-5FFDCE74FAD2"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":null,"enabled":true,"revoked":null,"predecessor":null,"successor":null,"origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_keys VALUES ('k_token', 'sha256', '\x0b00000007070707070707070707070707070707070707070707070707070707', 'k_token', 1, 'access_token', 'live', 'acme', NULL, 'k_token', NULL, '…', 1000000, NULL, NULL, 1, NULL, 1, '{"id":"k_token","family":"k_token","version":1,"name":"k_token","description":null,"kind":"access_token","environment":"live","owner":{"tenant_id":"acme"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":null,"enabled":true,"revoked":null,"predecessor":null,"successor":null,"origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_keys VALUES ('k_foreign', 'sha256', '\x0c00000007070707070707070707070707070707070707070707070707070707', 'k_foreign', 1, 'app', 'live', 'other', NULL, 'k_foreign', NULL, '…', 1000000, NULL, NULL, 1, NULL, 1, '{"id":"k_foreign","family":"k_foreign","version":1,"name":"k_foreign","description":null,"kind":"app","environment":"live","owner":{"tenant_id":"other"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":null,"enabled":true,"revoked":null,"predecessor":null,"successor":null,"origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_keys VALUES ('k_active', 'sha256', '\x0100000007070707070707070707070707070707070707070707070707070707', 'k_active', 1, 'app', 'live', 'acme', NULL, 'k_active', 'keeps äll, and ''quotes''', '…', 1000000, NULL, NULL, 1, NULL, 1, '{"id":"k_active","family":"k_active","version":1,"name":"k_active","description":"keeps äll, and ''quotes''","kind":"app","environment":"live","owner":{"tenant_id":"acme"},"masked":"…","scopes":["document:read","signature:*"],"access":"read-only","workspaces":["ws1","ws2"],"plan":"standard","delegation":"off","allowed_ips":["192.0.2.0/24","2001:db8::/32"],"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":null,"enabled":true,"revoked":null,"predecessor":null,"successor":null,"origin":null,"may_be_primary":true}', '\x0107070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707070707', 0);
INSERT INTO public.portunus_keys VALUES ('k_rehashed', 'sha256', '\x6d00000007070707070707070707070707070707070707070707070707070707', 'k_rehashed', 1, 'app', 'live', 'acme', NULL, 'k_rehashed', NULL, '…', 1000000, NULL, NULL, 1, NULL, 1, '{"id":"k_rehashed","family":"k_rehashed","version":1,"name":"k_rehashed","description":null,"kind":"app","environment":"live","owner":{"tenant_id":"acme"},"masked":"…","scopes":[],"access":"full-access","workspaces":null,"plan":null,"delegation":"off","allowed_ips":null,"quotas":null,"metadata":{},"created_at":{"secs_since_epoch":1000,"nanos_since_epoch":0},"not_before":null,"expires_at":null,"enabled":true,"revoked":null,"predecessor":null,"successor":null,"origin":null,"may_be_primary":true}', NULL, 0);
INSERT INTO public.portunus_primaries VALUES ('tenant_itself', 'acme', '', 'k_active');
INSERT INTO public.portunus_schema VALUES (1, NULL);
INSERT INTO public.portunus_schema VALUES (2, NULL);
INSERT INTO public.portunus_schema VALUES (3, 2);
INSERT INTO public.portunus_schema VALUES (4, 2);
INSERT INTO public.portunus_schema VALUES (5, 2);
INSERT INTO public.portunus_usage VALUES ('k_expired', 1, 1500000, '192.0.2.7');
INSERT INTO public.portunus_usage VALUES ('k_active', 5, 9000000, '192.0.2.7');
INSERT INTO public.portunus_usage_by_hour VALUES ('k_active', 3600000, 3);
INSERT INTO public.portunus_usage_by_hour VALUES ('k_expired', 0, 1);
INSERT INTO public.portunus_usage_by_hour VALUES ('k_active', 7200000, 2);
SELECT pg_catalog.setval('public.portunus_events_place_seq', 2, true);
SELECT pg_catalog.setval('public.portunus_outbox_place_seq', 1, false);
ALTER TABLE ONLY public.portunus_bulk
    ADD CONSTRAINT portunus_bulk_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.portunus_deleted
    ADD CONSTRAINT portunus_deleted_pkey PRIMARY KEY (key_id);
ALTER TABLE ONLY public.portunus_digests
    ADD CONSTRAINT portunus_digests_pkey PRIMARY KEY (digest, scheme);
ALTER TABLE ONLY public.portunus_event_parties
    ADD CONSTRAINT portunus_event_parties_pkey PRIMARY KEY (who, place);
ALTER TABLE ONLY public.portunus_events
    ADD CONSTRAINT portunus_events_id_key UNIQUE (id);
ALTER TABLE ONLY public.portunus_events
    ADD CONSTRAINT portunus_events_pkey PRIMARY KEY (place);
ALTER TABLE ONLY public.portunus_keys
    ADD CONSTRAINT portunus_keys_pkey PRIMARY KEY (id);
ALTER TABLE ONLY public.portunus_outbox
    ADD CONSTRAINT portunus_outbox_pkey PRIMARY KEY (place);
ALTER TABLE ONLY public.portunus_primaries
    ADD CONSTRAINT portunus_primaries_pkey PRIMARY KEY (owner_kind, owner_tenant, owner_user);
ALTER TABLE ONLY public.portunus_schema
    ADD CONSTRAINT portunus_schema_pkey PRIMARY KEY (version);
ALTER TABLE ONLY public.portunus_usage_by_hour
    ADD CONSTRAINT portunus_usage_by_hour_pkey PRIMARY KEY (key_id, start);
ALTER TABLE ONLY public.portunus_usage
    ADD CONSTRAINT portunus_usage_pkey PRIMARY KEY (key_id);
CREATE INDEX portunus_bulk_ended ON public.portunus_bulk USING btree (ended_at) WHERE (ended_at IS NOT NULL);
CREATE INDEX portunus_bulk_open ON public.portunus_bulk USING btree (started_at, id) WHERE (ended_at IS NULL);
CREATE INDEX portunus_digests_of_key ON public.portunus_digests USING btree (key_id);
CREATE INDEX portunus_event_parties_of_event ON public.portunus_event_parties USING btree (place);
CREATE INDEX portunus_events_acts ON public.portunus_events USING btree (action, place) WHERE (action <> 'request'::text);
CREATE INDEX portunus_events_acts_of_key ON public.portunus_events USING btree (key_id, action, place) WHERE (action <> 'request'::text);
CREATE INDEX portunus_events_acts_of_tenant ON public.portunus_events USING btree (tenant_id, action, place) WHERE (action <> 'request'::text);
CREATE INDEX portunus_events_by_age ON public.portunus_events USING btree (at);
CREATE INDEX portunus_events_of_key ON public.portunus_events USING btree (key_id, place) WHERE (key_id IS NOT NULL);
CREATE INDEX portunus_events_of_tenant ON public.portunus_events USING btree (tenant_id, place) WHERE (tenant_id IS NOT NULL);
CREATE INDEX portunus_events_refused ON public.portunus_events USING btree (outcome, place) WHERE (outcome <> 'OK'::text);
CREATE INDEX portunus_events_refused_of_key ON public.portunus_events USING btree (key_id, outcome, place) WHERE (outcome <> 'OK'::text);
CREATE INDEX portunus_events_refused_of_tenant ON public.portunus_events USING btree (tenant_id, outcome, place) WHERE (outcome <> 'OK'::text);
CREATE INDEX portunus_keys_by_age ON public.portunus_keys USING btree (created_at DESC, id);
CREATE UNIQUE INDEX portunus_keys_by_digest ON public.portunus_keys USING btree (digest, scheme);
CREATE INDEX portunus_keys_disabled ON public.portunus_keys USING btree (tenant_id, created_at DESC, id) WHERE (enabled = 0);
CREATE INDEX portunus_keys_disabled_by_age ON public.portunus_keys USING btree (created_at DESC, id) WHERE (enabled = 0);
CREATE INDEX portunus_keys_expiring ON public.portunus_keys USING btree (tenant_id, expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX portunus_keys_expiring_of_all ON public.portunus_keys USING btree (expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX portunus_keys_of_environment ON public.portunus_keys USING btree (tenant_id, environment, created_at DESC, id);
CREATE INDEX portunus_keys_of_environment_of_all ON public.portunus_keys USING btree (environment, created_at DESC, id);
CREATE INDEX portunus_keys_of_family ON public.portunus_keys USING btree (tenant_id, family, created_at DESC, id);
CREATE INDEX portunus_keys_of_family_of_all ON public.portunus_keys USING btree (family, created_at DESC, id);
CREATE INDEX portunus_keys_of_kind ON public.portunus_keys USING btree (tenant_id, kind, created_at DESC, id);
CREATE INDEX portunus_keys_of_kind_of_all ON public.portunus_keys USING btree (kind, created_at DESC, id);
CREATE INDEX portunus_keys_of_plan ON public.portunus_keys USING btree (tenant_id, "substring"(record, '"plan":"([^"]*)"'::text), created_at DESC, id) WHERE ("substring"(record, '"plan":"([^"]*)"'::text) IS NOT NULL);
CREATE INDEX portunus_keys_of_plan_of_all ON public.portunus_keys USING btree ("substring"(record, '"plan":"([^"]*)"'::text), created_at DESC, id) WHERE ("substring"(record, '"plan":"([^"]*)"'::text) IS NOT NULL);
CREATE INDEX portunus_keys_of_tenant ON public.portunus_keys USING btree (tenant_id, created_at DESC, id);
CREATE INDEX portunus_keys_of_user ON public.portunus_keys USING btree (tenant_id, user_id, created_at DESC, id);
CREATE INDEX portunus_keys_of_user_of_all ON public.portunus_keys USING btree (user_id, created_at DESC, id) WHERE (user_id IS NOT NULL);
CREATE INDEX portunus_keys_primary_of_tenant ON public.portunus_keys USING btree (tenant_id, created_at DESC, id) WHERE ((user_id IS NULL) AND (revoked_at IS NULL) AND (may_be_primary = 1));
CREATE INDEX portunus_keys_revoked ON public.portunus_keys USING btree (tenant_id, created_at DESC, id) WHERE (revoked_at IS NOT NULL);
CREATE INDEX portunus_keys_revoked_by_age ON public.portunus_keys USING btree (created_at DESC, id) WHERE (revoked_at IS NOT NULL);
CREATE INDEX portunus_keys_starting ON public.portunus_keys USING btree (tenant_id, not_before) WHERE (not_before IS NOT NULL);
CREATE INDEX portunus_keys_starting_of_all ON public.portunus_keys USING btree (not_before) WHERE (not_before IS NOT NULL);
CREATE INDEX portunus_keys_used ON public.portunus_keys USING btree (tenant_id, used_on);
CREATE INDEX portunus_keys_used_of_all ON public.portunus_keys USING btree (used_on);
CREATE INDEX portunus_primaries_by_key ON public.portunus_primaries USING btree (key_id);
CREATE INDEX portunus_usage_by_hour_by_age ON public.portunus_usage_by_hour USING btree (start);
