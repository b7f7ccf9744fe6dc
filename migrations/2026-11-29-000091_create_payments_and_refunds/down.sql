DELETE FROM security_alerts WHERE kind = 'disputes';
ALTER TABLE security_alerts
    DROP CONSTRAINT valid_alert_kind,
    ADD CONSTRAINT valid_alert_kind CHECK (kind IN ('flood', 'guessing', 'account_guessing', 'refusals', 'bad_webhooks'));
ALTER TABLE billing_customers DROP COLUMN payment_readings;
DROP TABLE refunds;
DROP TABLE payments;
