DROP INDEX enrolment_tokens_created;
DELETE FROM vpn_servers WHERE public_key IS NULL;
ALTER TABLE vpn_servers
    DROP CONSTRAINT enrolled_is_whole,
    ALTER COLUMN capacity DROP DEFAULT,
    ALTER COLUMN available_ips SET NOT NULL,
    ALTER COLUMN public_key SET NOT NULL,
    ALTER COLUMN endpoint SET NOT NULL,
    ALTER COLUMN ip_address SET NOT NULL;
COMMENT ON COLUMN nodes.draining IS NULL;
ALTER TABLE nodes
    DROP CONSTRAINT next_key_is_planned,
    DROP COLUMN last_load,
    DROP COLUMN next_public_key,
    DROP COLUMN rotate_key_at,
    DROP COLUMN drain_requested_at;
