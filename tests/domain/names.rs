//! Names in configurations and columns: every name that is written parses back to the same value,
//! and no other is accepted.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use portunus::audit::Action;
use portunus::key::{Access, DigestScheme, KeyKind};
use portunus::limit::{LimiterError, OnOutage};
use portunus::manage::NewKey;
use portunus::network::{ClientIp, ForwardedHeader};
use portunus::request::TlsVersion;
use portunus::store::{HourOfUse, OwnerRef, Usage};
use portunus::testing::{TestKeys, TestPrincipal, TestRequest};
use portunus::{Authenticator, ErrorCode, Principal, scope};
use portunus_test_support::Head;
use std::time::{Duration, SystemTime};

fn assert_read_back<T: FromStr + Display + Debug + PartialEq>(all: impl IntoIterator<Item = T>)
where
    T::Err: Display,
{
    for one in all {
        let text = one.to_string();
        assert_eq!(text.parse::<T>().ok().as_ref(), Some(&one), "{text}");
        for wrong in [
            format!("{text} "),
            text.to_uppercase() + "X",
            String::new(),
            "x".repeat(1_000),
        ] {
            let error = wrong
                .parse::<T>()
                .err()
                .unwrap_or_else(|| panic!("{wrong:?} was accepted"));
            assert!(error.to_string().len() < 200, "{error}");
        }
    }
}

#[test]
fn every_name_parses_back_to_its_value() {
    assert_read_back([Access::FullAccess, Access::ReadOnly]);
    assert_read_back([OnOutage::Local, OnOutage::Closed, OnOutage::Open]);
    assert_read_back([
        TlsVersion::V1_0,
        TlsVersion::V1_1,
        TlsVersion::V1_2,
        TlsVersion::V1_3,
    ]);
    assert_read_back([KeyKind::App, KeyKind::User, KeyKind::AccessToken]);
    assert_read_back([
        DigestScheme::Sha256,
        DigestScheme::Sha512,
        DigestScheme::HmacSha256 { pepper: 7 },
    ]);
    assert_read_back(Action::ALL.iter().copied());
}

#[test]
fn access_has_one_name_everywhere() {
    for access in [Access::FullAccess, Access::ReadOnly] {
        assert_eq!(serde_json::to_value(access).unwrap(), access.as_str());
    }
}

#[test]
fn a_forwarding_header_goes_by_its_name_in_any_case() {
    assert_eq!(
        ForwardedHeader::from("X-Forwarded-For"),
        ForwardedHeader::XForwardedFor
    );
    assert_eq!(
        ForwardedHeader::from("FORWARDED"),
        ForwardedHeader::Forwarded
    );
    assert_eq!(
        ForwardedHeader::from("CF-Connecting-IP"),
        ForwardedHeader::single("cf-connecting-ip")
    );
    for header in [
        ForwardedHeader::Single("CF-Connecting-IP".into()),
        ForwardedHeader::from("cf-connecting-ip"),
    ] {
        let (at_home, hops) = (
            "10.0.0.0/8".parse().unwrap(),
            ClientIp::behind_hops(1, header.clone()),
        );
        for client_ip in [ClientIp::behind([at_home], header), hops] {
            let asked = Head::new()
                .from("10.0.0.1")
                .with("cf-connecting-ip", "203.0.113.7");
            assert_eq!(
                client_ip.resolve(&asked),
                Some("203.0.113.7".parse().unwrap()),
                "{client_ip:?}"
            );
        }
    }
}

#[test]
fn values_stored_with_records_can_be_serialized() {
    let (tenant, user) = (|| "acme".parse().unwrap(), "u1".parse().unwrap());
    for owner in [
        OwnerRef::Tenant(tenant()),
        OwnerRef::TenantItself(tenant()),
        OwnerRef::User(tenant(), user),
    ] {
        let json = serde_json::to_string(&owner).unwrap();
        assert_eq!(
            serde_json::from_str::<OwnerRef>(&json).unwrap(),
            owner,
            "{json}"
        );
    }
    let hour = HourOfUse::new(SystemTime::UNIX_EPOCH, 7);
    assert_eq!(
        serde_json::from_value::<HourOfUse>(serde_json::to_value(hour).unwrap()).unwrap(),
        hour
    );
    let usage = Usage::default();
    assert_eq!(
        serde_json::from_value::<Usage>(serde_json::to_value(usage).unwrap()).unwrap(),
        usage
    );
}

#[tokio::test]
async fn shorthand_constructors_equal_the_long_forms() {
    let caller = TestPrincipal::app("acme").scopes(["document:read"]).build();
    assert!(caller.require_scope(scope!("document:read")).is_ok());
    let refusal = caller.require_scope(scope!("document:write")).unwrap_err();
    assert_eq!(refusal.code(), ErrorCode::InsufficientScope);

    let keys = TestKeys::new();
    let service = keys.builder().build().unwrap();
    let authenticator: Authenticator = service.authenticator().optional_key();
    let nobody = authenticator
        .authenticate(&TestRequest::get("/"))
        .await
        .unwrap();
    assert_eq!(
        nobody.into_principal().unwrap_err().code(),
        ErrorCode::MissingKey
    );
    let key = keys.issue("acme", []);
    let somebody = authenticator
        .authenticate(&TestRequest::get("/").bearer(&key))
        .await
        .unwrap();
    assert_eq!(
        somebody.into_principal().unwrap().key_id(),
        &keys.id_of(&key)
    );

    let ends = keys.in_the(Duration::from_secs(1));
    let office = portunus::network::AllowList::parse(["203.0.113.0/24"]).unwrap();
    let new = NewKey::new("key", portunus::key::Owner::tenant("acme".parse().unwrap()));
    let new = new
        .expiring_at(ends)
        .with_allowed_ips(office.clone())
        .with_environment("test".parse().unwrap());
    let new = new
        .with_quotas(portunus::quota::Quotas::default())
        .with_delegation(portunus::key::Delegation::On);
    assert_eq!(
        (new.expires_at, new.allowed_ips, new.quotas.is_some()),
        (Some(ends), Some(office), true)
    );
    assert_eq!(
        new.environment.map(|name| name.to_string()).as_deref(),
        Some("test")
    );
    assert_eq!(new.delegation, Some(portunus::key::Delegation::On));
    assert_eq!(
        LimiterError::unavailable("down").to_string(),
        "the rate limiter did not answer"
    );
}
