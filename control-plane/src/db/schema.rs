//! The tables as Diesel sees them; held to the migrations by a test.

diesel::table! {
    audit_log (id) {
        id -> Uuid,
        at -> Timestamptz,
        action -> Varchar,
        outcome -> Varchar,
        actor_kind -> Varchar,
        actor -> Nullable<Varchar>,
        subject_kind -> Nullable<Varchar>,
        subject -> Nullable<Varchar>,
        before -> Nullable<Jsonb>,
        after -> Nullable<Jsonb>,
        request_id -> Nullable<Varchar>,
    }
}

diesel::table! {
    bans (id) {
        id -> Uuid,
        network -> Cidr,
        reason -> Varchar,
        note -> Nullable<Varchar>,
        made_by -> Varchar,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        ended_at -> Nullable<Timestamptz>,
        changed_at -> Timestamptz,
    }
}

diesel::table! {
    billing_customers (user_id) {
        user_id -> Uuid,
        id -> Uuid,
        stripe_hash -> Bytea,
        sealed_stripe_id -> Bytea,
        readings -> Int8,
        created_at -> Timestamptz,
        whole_since -> Int8,
        payment_readings -> Int8,
    }
}

diesel::table! {
    billing_reconciliations (id) {
        id -> Uuid,
        started_at -> Timestamptz,
        ended_at -> Timestamptz,
        is_dry_run -> Bool,
        is_complete -> Bool,
        report -> Jsonb,
    }
}

diesel::table! {
    connections (id) {
        id -> Uuid,
        user_id -> Uuid,
        server_id -> Nullable<Uuid>,
        device_id -> Nullable<Uuid>,
        status -> Varchar,
        end_reason -> Nullable<Varchar>,
        client_public_key -> Varchar,
        client_ip -> Nullable<Inet>,
        client_ipv6 -> Nullable<Inet>,
        user_slot -> Nullable<Int2>,
        peer_id -> Int8,
        revision -> Int8,
        idempotency_key -> Nullable<Varchar>,
        supersedes -> Nullable<Uuid>,
        bytes_sent -> Int8,
        bytes_received -> Int8,
        counter_generation -> Int8,
        generation_sent -> Int8,
        generation_received -> Int8,
        peak_bytes_per_second -> Int8,
        claimed_bytes_sent -> Nullable<Int8>,
        claimed_bytes_received -> Nullable<Int8>,
        last_handshake_at -> Nullable<Timestamptz>,
        expires_at -> Nullable<Timestamptz>,
        started_at -> Timestamptz,
        connected_at -> Nullable<Timestamptz>,
        ended_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        sealed_psk -> Nullable<Bytea>,
        download_bps -> Nullable<Int8>,
        upload_bps -> Nullable<Int8>,
        allowance -> Nullable<Int8>,
        allowance_held -> Nullable<Int8>,
        share_at -> Nullable<Int8>,
        consumed -> Int8,
        offered_until -> Nullable<Timestamptz>,
        offer_tried_at -> Nullable<Timestamptz>,
        offer_reason -> Nullable<Varchar>,
        offer_made -> Nullable<Bool>,
        round_trip_us -> Nullable<Int4>,
    }
}

diesel::table! {
    devices (id) {
        id -> Uuid,
        user_id -> Uuid,
        name -> Varchar,
        public_key -> Varchar,
        last_connected_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    enrolment_tokens (id) {
        id -> Uuid,
        hostname -> Varchar,
        country -> Varchar,
        country_code -> Bpchar,
        city -> Varchar,
        location -> Varchar,
        tier -> Int2,
        expires_at -> Timestamptz,
        used_at -> Nullable<Timestamptz>,
        server_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    jobs (id) {
        id -> Uuid,
        kind -> Varchar,
        sealed -> Bytea,
        status -> Varchar,
        attempts -> Int4,
        run_at -> Timestamptz,
        last_error -> Nullable<Text>,
        created_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    login_places (user_id, place) {
        user_id -> Uuid,
        place -> Bytea,
        seen_at -> Timestamptz,
    }
}

diesel::table! {
    nodes (server_id) {
        server_id -> Uuid,
        desired_revision -> Int8,
        applied_revision -> Int8,
        state_hash -> Nullable<Bpchar>,
        token_epoch -> Int4,
        session_fence -> Int8,
        session_replica -> Nullable<Uuid>,
        draining -> Bool,
        peers -> Int4,
        pool_used -> Int4,
        boot_id -> Nullable<Uuid>,
        interface_epoch -> Nullable<Uuid>,
        agent_version -> Nullable<Varchar>,
        backend -> Nullable<Varchar>,
        protocol -> Nullable<Int2>,
        last_seen_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        drain_requested_at -> Nullable<Timestamptz>,
        rotate_key_at -> Nullable<Timestamptz>,
        next_public_key -> Nullable<Varchar>,
        last_load -> Nullable<Jsonb>,
    }
}

diesel::table! {
    oauth_clients (id) {
        id -> Varchar,
        name -> Varchar,
        redirect_uris -> Array<Text>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    oauth_codes (code_hash) {
        code_hash -> Bytea,
        client_id -> Varchar,
        user_id -> Uuid,
        redirect_uri -> Text,
        code_challenge -> Varchar,
        expires_at -> Timestamptz,
        used_at -> Nullable<Timestamptz>,
        session_id -> Nullable<Uuid>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    one_time_tokens (token_hash) {
        token_hash -> Bytea,
        user_id -> Uuid,
        purpose -> Varchar,
        email -> Varchar,
        expires_at -> Timestamptz,
        used_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    operator_tokens (id) {
        id -> Uuid,
        name -> Varchar,
        rights -> Array<Text>,
        expires_at -> Timestamptz,
        revoked_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    payments (id) {
        id -> Uuid,
        user_id -> Uuid,
        subscription_id -> Nullable<Uuid>,
        plan_id -> Nullable<Varchar>,
        minor -> Int8,
        tax -> Int8,
        currency -> Bpchar,
        refunded -> Int8,
        status -> Varchar,
        stripe_hash -> Bytea,
        sealed_stripe_id -> Bytea,
        intent_hash -> Nullable<Bytea>,
        sealed_intent_id -> Nullable<Bytea>,
        period_start -> Nullable<Timestamptz>,
        period_end -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
        paid_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    plans (id) {
        id -> Varchar,
        name -> Varchar,
        plan_type -> Varchar,
        price_minor -> Int8,
        currency -> Bpchar,
        features -> Array<Text>,
        streaming_support -> Bool,
        max_devices -> Int4,
        max_connections -> Int4,
        tier -> Int2,
        download_mbps -> Nullable<Int4>,
        upload_mbps -> Nullable<Int4>,
        quota_bytes -> Nullable<Int8>,
        is_offered -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        seal_row -> Uuid,
        sealed_price -> Nullable<Bytea>,
        trial_days -> Int4,
    }
}

diesel::table! {
    purchases (id) {
        id -> Uuid,
        user_id -> Uuid,
        #[max_length = 50]
        plan_id -> Varchar,
        #[max_length = 12]
        kind -> Varchar,
        #[max_length = 8]
        status -> Varchar,
        sealed_order -> Bytea,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    quota_shares (user_id) {
        user_id -> Uuid,
        version -> Int8,
        month -> Date,
        quota_bytes -> Int8,
    }
}

diesel::table! {
    quota_usage (user_id, month) {
        user_id -> Uuid,
        month -> Date,
        consumed -> Int8,
    }
}

diesel::table! {
    recovery_codes (code_hash) {
        code_hash -> Bytea,
        user_id -> Uuid,
        used_at -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    refresh_tokens (token_hash) {
        token_hash -> Bytea,
        session_id -> Uuid,
        created_at -> Timestamptz,
        used_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    refunds (id) {
        id -> Uuid,
        payment_id -> Uuid,
        minor -> Int8,
        currency -> Bpchar,
        reason -> Nullable<Varchar>,
        requested_by -> Nullable<Uuid>,
        request_key -> Nullable<Varchar>,
        status -> Varchar,
        stripe_hash -> Nullable<Bytea>,
        sealed_stripe_id -> Nullable<Bytea>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    replica_reports (replica) {
        replica -> Uuid,
        at -> Timestamptz,
        node_sessions -> Int4,
        viewers -> Int4,
        moving_peers -> Int4,
        upload_bps -> Int8,
        download_bps -> Int8,
    }
}

diesel::table! {
    rollup_state (id) {
        id -> Bool,
        closed_until -> Date,
        sampled_at -> Timestamptz,
    }
}

diesel::table! {
    security_alerts (id) {
        id -> Uuid,
        kind -> Varchar,
        user_id -> Nullable<Uuid>,
        started_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        ended_at -> Nullable<Timestamptz>,
        count -> Int8,
        notified_at -> Nullable<Timestamptz>,
        acknowledged_at -> Nullable<Timestamptz>,
        acknowledged_by -> Nullable<Varchar>,
    }
}

diesel::table! {
    server_days (server_id, day) {
        server_id -> Uuid,
        day -> Date,
        bytes_sent -> Int8,
        bytes_received -> Int8,
        peak_bytes_per_second -> Int8,
        connects -> Int4,
        ends -> Int4,
        connected_seconds -> Int8,
        samples -> Int4,
        load_sum -> Float8,
        load_peak -> Float8,
        peers_sum -> Int8,
        peers_peak -> Int4,
    }
}

diesel::table! {
    server_hours (server_id, hour) {
        server_id -> Uuid,
        hour -> Timestamptz,
        bytes_sent -> Int8,
        bytes_received -> Int8,
        peak_bytes_per_second -> Int8,
        connects -> Int4,
        ends -> Int4,
        connected_seconds -> Int8,
        samples -> Int4,
        load_sum -> Float8,
        load_peak -> Float8,
        peers_sum -> Int8,
        peers_peak -> Int4,
    }
}

diesel::table! {
    sessions (id) {
        id -> Uuid,
        user_id -> Uuid,
        client_id -> Nullable<Varchar>,
        name -> Nullable<Varchar>,
        created_at -> Timestamptz,
        last_used_at -> Timestamptz,
        expires_at -> Timestamptz,
        revoked_at -> Nullable<Timestamptz>,
        revoke_reason -> Nullable<Varchar>,
    }
}

diesel::table! {
    stripe_events (id) {
        id -> Uuid,
        event_hash -> Bytea,
        kind -> Varchar,
        sealed_payload -> Bytea,
        status -> Varchar,
        attempts -> Int4,
        last_error -> Nullable<Text>,
        received_at -> Timestamptz,
        done_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    subscriptions (id) {
        id -> Uuid,
        user_id -> Uuid,
        plan_id -> Varchar,
        plan_type -> Varchar,
        status -> Varchar,
        start_date -> Timestamptz,
        end_date -> Nullable<Timestamptz>,
        auto_renew -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        stripe_hash -> Nullable<Bytea>,
        sealed_stripe_id -> Nullable<Bytea>,
        trial_end -> Nullable<Timestamptz>,
        cancel_at_period_end -> Bool,
        access_until -> Nullable<Timestamptz>,
        throttle_mbps -> Nullable<Int4>,
        lapsed_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    totp_factors (user_id) {
        user_id -> Uuid,
        sealed_secret -> Bytea,
        enabled_at -> Nullable<Timestamptz>,
        last_step -> Int8,
        failures -> Int4,
        locked_until -> Nullable<Timestamptz>,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    usage_days (user_id, day, server_id) {
        user_id -> Uuid,
        day -> Date,
        server_id -> Uuid,
        bytes_sent -> Int8,
        bytes_received -> Int8,
        peak_bytes_per_second -> Int8,
        connects -> Int4,
        ends -> Int4,
        connected_seconds -> Int8,
    }
}

diesel::table! {
    usage_hours (user_id, hour, server_id) {
        user_id -> Uuid,
        hour -> Timestamptz,
        server_id -> Uuid,
        bytes_sent -> Int8,
        bytes_received -> Int8,
        peak_bytes_per_second -> Int8,
        connects -> Int4,
        ends -> Int4,
        connected_seconds -> Int8,
    }
}

diesel::table! {
    users (id) {
        id -> Uuid,
        email -> Varchar,
        hashed_password -> Varchar,
        full_name -> Nullable<Varchar>,
        role -> Varchar,
        is_superuser -> Bool,
        is_active -> Bool,
        is_verified -> Bool,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        deleted_at -> Nullable<Timestamptz>,
        warned_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    vpn_servers (id) {
        id -> Uuid,
        hostname -> Varchar,
        country -> Varchar,
        country_code -> Bpchar,
        city -> Varchar,
        location -> Varchar,
        ip_address -> Nullable<Inet>,
        endpoint -> Nullable<Varchar>,
        public_key -> Nullable<Varchar>,
        status -> Varchar,
        tier -> Int2,
        current_load -> Float8,
        ping -> Int4,
        available_ips -> Nullable<Cidr>,
        available_ips_v6 -> Nullable<Cidr>,
        capacity -> Int4,
        download_mbps -> Int4,
        upload_mbps -> Int4,
        protocols -> Array<Text>,
        streaming_services -> Array<Text>,
        features -> Array<Text>,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
    }
}

diesel::joinable!(billing_customers -> users (user_id));
diesel::joinable!(connections -> users (user_id));
diesel::joinable!(connections -> vpn_servers (server_id));
diesel::joinable!(connections -> devices (device_id));
diesel::joinable!(devices -> users (user_id));
diesel::joinable!(enrolment_tokens -> vpn_servers (server_id));
diesel::joinable!(login_places -> users (user_id));
diesel::joinable!(nodes -> vpn_servers (server_id));
diesel::joinable!(oauth_codes -> oauth_clients (client_id));
diesel::joinable!(oauth_codes -> sessions (session_id));
diesel::joinable!(oauth_codes -> users (user_id));
diesel::joinable!(one_time_tokens -> users (user_id));
diesel::joinable!(purchases -> plans (plan_id));
diesel::joinable!(purchases -> users (user_id));
diesel::joinable!(payments -> plans (plan_id));
diesel::joinable!(payments -> subscriptions (subscription_id));
diesel::joinable!(payments -> users (user_id));
diesel::joinable!(recovery_codes -> users (user_id));
diesel::joinable!(refresh_tokens -> sessions (session_id));
diesel::joinable!(refunds -> payments (payment_id));
diesel::joinable!(quota_shares -> users (user_id));
diesel::joinable!(quota_usage -> users (user_id));
diesel::joinable!(sessions -> oauth_clients (client_id));
diesel::joinable!(sessions -> users (user_id));
diesel::joinable!(subscriptions -> users (user_id));
diesel::joinable!(subscriptions -> plans (plan_id));
diesel::joinable!(totp_factors -> users (user_id));

diesel::allow_tables_to_appear_in_same_query!(
    audit_log,
    bans,
    billing_customers,
    billing_reconciliations,
    connections,
    devices,
    enrolment_tokens,
    jobs,
    login_places,
    nodes,
    oauth_clients,
    oauth_codes,
    one_time_tokens,
    operator_tokens,
    payments,
    plans,
    purchases,
    quota_shares,
    quota_usage,
    recovery_codes,
    refresh_tokens,
    refunds,
    replica_reports,
    rollup_state,
    security_alerts,
    server_days,
    server_hours,
    sessions,
    stripe_events,
    subscriptions,
    totp_factors,
    usage_days,
    usage_hours,
    users,
    vpn_servers,
);
