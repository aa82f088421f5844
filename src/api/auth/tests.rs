use super::*;
use signature::tests::SECRET;
use std::{fs, net::SocketAddr};

fn auth(lines: &str, limit: u32) -> (tempfile::TempDir, Auth) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    fs::write(&path, lines).unwrap();
    let auth = Auth::from_file(&path, limit).unwrap();
    (folder, auth)
}

fn request(headers: &[(&str, &str)]) -> Request {
    let mut request = Request::new("POST", "/v1/models/iris:predict");
    request.peer = Some("10.1.2.3:4".parse::<SocketAddr>().unwrap());
    headers.iter().for_each(|(name, value)| request.headers.push(name, value));
    request
}

#[test]
fn every_scheme_finds_its_token() {
    let (_folder, auth) = auth("good plain:abc\nold plain:def 2000-01-01\n", 0);
    let schemes = [
        ("X-Auth-Token", "", Scheme::AuthToken),
        ("x-apig-appcode", "", Scheme::AppCode),
        ("apikey", "", Scheme::AppKey),
        ("Authorization", "Bearer ", Scheme::Bearer),
        ("authorization", "bearer ", Scheme::Bearer),
    ];
    for (header, before, scheme) in schemes {
        let check = |token: &str| auth.check(&request(&[(header, &format!("{before}{token}"))]));
        assert_eq!(&*check("abc").unwrap().name, "good", "{header}");
        assert_eq!(check("abd"), Err(Refusal::Invalid(scheme)));
        assert_eq!(check("def"), Err(Refusal::Expired(scheme)));
        let message = check("abd").unwrap_err().message();
        assert!(!message.contains("abd"), "{message}");
    }
    assert_eq!(auth.check(&request(&[])), Err(Refusal::Missing));
    assert!(matches!(auth.check(&request(&[("authorization", "Basic abc")])), Err(Refusal::Malformed(_))));
    assert!(matches!(auth.check(&request(&[("authorization", "abc")])), Err(Refusal::Malformed(_))));
}

#[test]
fn signatures_of_another_time_are_refused() {
    let (_folder, auth) = auth(&format!("k key:QTWAOYTTINDUT2QVKYUC:{SECRET}\n"), 0);
    let value = "SDK-HMAC-SHA256 Access=QTWAOYTTINDUT2QVKYUC, SignedHeaders=content-type;host;x-sdk-date, \
                 Signature=7be6668032f70418fcc22abc52071e57aff61b84a1d2381bb430d6870f4f6ebe";
    let mut signed = request(&[
        ("authorization", value),
        ("x-sdk-date", "20191115T033655Z"),
        ("host", "service.region.example.com"),
        ("content-type", "application/json"),
    ]);
    signed.method = "GET".into();
    signed.target =
        "/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs?limit=2&marker=13551d6b-755d-4757-b956-536f674975c0"
            .into();
    let caller =
        |body| Caller { method: &signed.method, target: &signed.target, headers: &signed.headers, body };
    let (then, empty, other) = (1_573_789_015, Bytes::new(), Bytes::from_static(b"x"));
    assert_eq!(&*auth.identify(&caller(Some(&empty)), then + 899).unwrap().name, "k");
    assert_eq!(auth.identify(&caller(Some(&other)), then), Err(Refusal::Invalid(Scheme::Signature)));
    assert!(auth.identify(&caller(None), then).is_ok(), "before the body only the key is looked at");
    for now in [then - 901, then + 901] {
        assert_eq!(auth.identify(&caller(Some(&empty)), now), Err(Refusal::Expired(Scheme::Signature)));
    }
    assert_eq!(auth.check(&signed), Err(Refusal::Expired(Scheme::Signature)));
}

#[test]
fn failures_are_limited_per_address_and_good_calls_are_not_counted() {
    let (_folder, auth) = auth("good plain:abc\n", 3);
    for _ in 0..10 {
        assert!(auth.check(&request(&[("apikey", "abc")])).is_ok());
        assert_eq!(auth.check(&request(&[])), Err(Refusal::Missing));
    }
    for _ in 0..3 {
        assert!(matches!(auth.check(&request(&[("apikey", "x")])), Err(Refusal::Invalid(_))));
    }
    assert!(matches!(auth.check(&request(&[("apikey", "x")])), Err(Refusal::Throttled(_))));
    assert!(matches!(auth.check(&request(&[("apikey", "abc")])), Err(Refusal::Throttled(_))));
    let mut elsewhere = request(&[("apikey", "abc")]);
    elsewhere.peer = Some("10.9.9.9:4".parse().unwrap());
    assert!(auth.check(&elsewhere).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_again_leaves_the_tokens() {
    let (folder, auth) = auth("good plain:abc\n", 0);
    let path = folder.path().join("tokens");
    fs::write(&path, "good hunter2\n").unwrap();
    assert!(auth.reload().is_err());
    assert!(auth.check(&request(&[("apikey", "abc")])).is_ok());
    fs::write(&path, "good plain:xyz\n").unwrap();
    assert_eq!(auth.reload().unwrap(), 1);
    assert!(auth.check(&request(&[("apikey", "abc")])).is_err());
    assert!(auth.check(&request(&[("apikey", "xyz")])).is_ok());
}
