//! Tests of portunus that need third-party frameworks, clients and servers. The guides that need
//! them are also compiled and run here.

macro_rules! guides {
    ($($guide:ident = $file:literal),* $(,)?) => {$(
        #[cfg(doctest)]
        #[doc = include_str!(concat!("../../../src/guide/", $file))]
        pub mod $guide {}
    )*};
}

guides! {
    at_scale = "at_scale.md",
    first_service = "first_service.md",
    importing = "importing.md",
    notices = "notices.md",
    observability = "observability.md",
    protect_actix = "protect_actix.md",
    keys_in_addresses = "keys_in_addresses.md",
    protect_grpc = "protect_grpc.md",
    sessions = "sessions.md",
    slow_clients = "slow_clients.md",
}
