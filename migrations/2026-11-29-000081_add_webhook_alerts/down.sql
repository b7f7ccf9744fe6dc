DELETE FROM security_alerts WHERE kind = 'bad_webhooks';
ALTER TABLE security_alerts
    DROP CONSTRAINT valid_alert_kind,
    ADD CONSTRAINT valid_alert_kind CHECK (kind IN ('flood', 'guessing', 'account_guessing', 'refusals'));
