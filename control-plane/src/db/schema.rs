//! The tables as Diesel sees them; held to the migrations by a test.

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
        ip_address -> Inet,
        endpoint -> Varchar,
        public_key -> Varchar,
        status -> Varchar,
        tier -> Int2,
        current_load -> Float8,
        ping -> Int4,
        available_ips -> Cidr,
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

diesel::joinable!(connections -> users (user_id));
diesel::joinable!(connections -> vpn_servers (server_id));
diesel::joinable!(connections -> devices (device_id));
diesel::joinable!(devices -> users (user_id));
diesel::joinable!(enrolment_tokens -> vpn_servers (server_id));
diesel::joinable!(nodes -> vpn_servers (server_id));
diesel::joinable!(subscriptions -> users (user_id));
diesel::joinable!(subscriptions -> plans (plan_id));

diesel::allow_tables_to_appear_in_same_query!(
    connections,
    devices,
    enrolment_tokens,
    nodes,
    plans,
    subscriptions,
    users,
    vpn_servers,
);
