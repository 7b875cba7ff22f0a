//! Tests of portunus that need other people's frameworks, clients and servers; the guides that do
//! are compiled and run here, too.

macro_rules! guides {
    ($($guide:ident = $file:literal),* $(,)?) => {$(
        #[cfg(doctest)]
        #[doc = include_str!(concat!("../../../src/guide/", $file))]
        pub mod $guide {}
    )*};
}

guides! {
    protect_actix = "protect_actix.md",
    protect_grpc = "protect_grpc.md",
    slow_clients = "slow_clients.md",
}
