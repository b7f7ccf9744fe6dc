COMMENT ON TABLE quota_usage IS 'What a person used of the quota in a month of UTC. A statement takes its lock last of all.';

DROP TABLE rollup_state;
DROP TABLE server_days;
DROP TABLE server_hours;
DROP TABLE usage_days;
DROP TABLE usage_hours;
