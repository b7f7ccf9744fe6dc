ALTER TABLE security_alerts
    DROP CONSTRAINT valid_alert_kind,
    ADD CONSTRAINT valid_alert_kind CHECK (kind IN ('flood', 'guessing', 'account_guessing', 'refusals', 'bad_webhooks'));
