//! `/dashboard` and `/me/keys`: pages for operators who sign in with their token.

use crate::common::{Answer, Call, Server};

const FORM: &str = "application/x-www-form-urlencoded";

fn post(path: &str, cookie: &str, body: &str) -> Call {
    Call::post(path)
        .field("Content-Type", FORM)
        .field("Accept", "text/html")
        .field("Sec-Fetch-Site", "same-origin")
        .field("Cookie", cookie)
        .body(body)
}

/// Signs in to an area, and returns the session's cookie.
fn sign_in(server: &Server, area: &str, operator: &str) -> String {
    let token = server.operator(operator);
    let answer = server.send(&post(
        &format!("{area}/login"),
        "",
        &format!("token={token}"),
    ));
    assert_eq!(answer.status, 303, "{}", answer.text());
    let [cookie] = answer.fields("set-cookie")[..] else {
        panic!("one cookie")
    };
    let path = format!("; Path={area};");
    for attribute in [path.as_str(), "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    cookie.split(';').next().unwrap().to_owned()
}

fn get(server: &Server, path: &str, cookie: &str) -> Answer {
    server.send(&Call::get(path).field("Cookie", cookie))
}

/// Returns the value of a hidden field.
fn hidden(page: &Answer, name: &str) -> String {
    let text = page.text();
    let (_, after) = text
        .split_once(&format!("name=\"{name}\" value=\""))
        .expect(name);
    after.split('"').next().unwrap().to_owned()
}

/// Issues a key on a page; returns its secret.
fn issue(server: &Server, at: &str, cookie: &str, fields: &str) -> String {
    let page = get(server, &format!("{at}?page=issue"), cookie);
    assert_eq!(page.status, 200, "{}", page.text());
    let (token, once) = (hidden(&page, "token"), hidden(&page, "once"));
    let body = format!("token={token}&once={once}&{fields}");
    let issued = server.send(&post(&format!("{at}?page=issue"), cookie, &body));
    assert_eq!(issued.status, 200, "{}", issued.text());
    assert_eq!(issued.fields("cache-control"), ["no-store"]);
    let text = issued.text();
    let (_, after) = text.split_once("<code id=\"secret\"").unwrap();
    let secret = after.split_once('>').unwrap().1.split('<').next().unwrap();
    secret.to_owned()
}

#[test]
fn an_operator_signs_in_issues_a_key_that_works_and_signs_out() {
    let server = Server::of("allsign");
    for path in ["/dashboard", "/dashboard/", "/dashboard?page=issue"] {
        let answer = server.send(&Call::get(path));
        assert_eq!(answer.status, 303, "{path}: {}", answer.text());
        assert_eq!(answer.fields("location"), ["/dashboard/login"]);
    }
    let cookie = sign_in(&server, "/dashboard", "owner");
    let secret = issue(
        &server,
        "/dashboard",
        &cookie,
        "name=of+the+owner&scopes=document:read",
    );
    assert_eq!(
        server.send(&Call::get("/whoami").bearer(&secret)).status,
        200
    );
    for path in ["/dashboard", "/dashboard/"] {
        let list = get(&server, path, &cookie);
        assert_eq!(list.status, 200, "{path}");
        assert!(list.text().contains("of the owner") && !list.text().contains(&secret));
    }
    assert_eq!(get(&server, "/dashboard/nothing", &cookie).status, 404);
    let out = server.send(&post("/dashboard/logout", &cookie, ""));
    assert_eq!(
        (out.status, out.fields("location")),
        (303, vec!["/dashboard/login"])
    );
    assert_eq!(get(&server, "/dashboard", &cookie).status, 303);
}

#[test]
fn a_user_manages_its_own_keys_on_the_portal() {
    let server = Server::of("allsign");
    let owner = sign_in(&server, "/dashboard", "owner");
    issue(&server, "/dashboard", &owner, "name=of+the+tenant");
    let member = sign_in(&server, "/me", "member");
    let secret = issue(
        &server,
        "/me/keys",
        &member,
        "name=of+the+member&scopes=document:read",
    );
    assert_eq!(
        server.send(&Call::get("/whoami").bearer(&secret)).status,
        200
    );
    for path in ["/me/keys", "/me/keys/"] {
        let list = get(&server, path, &member);
        assert_eq!(list.status, 200, "{path}");
        assert!(list.text().contains("of the member") && !list.text().contains("of the tenant"));
    }
    // The session of one area is none of the other, whatever its cookie is called.
    let renamed = member.replace("esign_session", "esign_operator");
    for cookie in [&member, &renamed] {
        assert_eq!(get(&server, "/dashboard", cookie).status, 303);
    }
}

/// On axum and on actix-web: the pages read the limiter that the API's requests are counted by.
#[test]
fn a_key_that_was_used_five_times_has_used_five_of_its_minute() {
    let server = Server::of("allsign");
    for (area, mount, operator) in [
        ("/dashboard", "/dashboard", "owner"),
        ("/me", "/me/keys", "member"),
    ] {
        let cookie = sign_in(&server, area, operator);
        let secret = issue(&server, mount, &cookie, "name=used&scopes=document:read");
        for _ in 0..5 {
            let answer = server.send(&Call::get("/whoami").bearer(&secret));
            assert_eq!(answer.status, 200);
        }
        let list = get(&server, mount, &cookie).text();
        let (_, id) = list.split_once("?page=key&amp;id=").unwrap();
        let id = id.split('"').next().unwrap();
        // Reading the page is no use of the key.
        for _ in 0..3 {
            let page = get(&server, &format!("{mount}?page=key&id={id}"), &cookie);
            assert_eq!(page.status, 200);
            let text = page.text();
            let label = "<strong>5</strong> of 60 requests used in the last 60 seconds (minute), \
                         55 left";
            assert!(text.contains(label), "{text}");
            let meter = "max=\"60\" high=\"48\" optimum=\"0\" value=\"5\"";
            assert!(text.contains(meter), "{text}");
        }
    }
}

#[test]
fn an_operator_who_signs_in_again_and_again_ends_only_its_own_sessions() {
    let server = Server::of("allsign");
    let owner = sign_in(&server, "/dashboard", "owner");
    let status = |cookie: &str| get(&server, "/dashboard", cookie).status;
    let cookies: Vec<_> = (0..101)
        .map(|_| sign_in(&server, "/dashboard", "outsider"))
        .collect();
    assert_eq!(status(&owner), 200);
    assert_eq!(status(&cookies[0]), 303, "the oldest one of a hundred");
    assert_eq!(status(&cookies[1]), 200);
    assert_eq!(status(&cookies[100]), 200);
}

#[test]
fn a_wrong_token_shows_the_form_again_and_too_many_are_refused() {
    let server = Server::of("allsign");
    let wrong = || post("/dashboard/login", "", "token=op_wrong_secret");
    let answer = server.send(&wrong());
    assert_eq!(answer.status, 401);
    assert!(answer.fields("set-cookie").is_empty());
    let text = answer.text();
    assert!(
        text.contains("<form method=\"post\"") && text.contains("not valid"),
        "{text}"
    );
    assert!(!text.contains("op_wrong_secret"));
    for _ in 0..109 {
        server.send(&wrong());
    }
    let last = server.send(&wrong());
    assert_eq!(last.status, 429);
    assert!(last.text().contains("Too many attempts") && !last.fields("retry-after").is_empty());
}

#[test]
fn the_words_of_each_api_are_on_its_pages() {
    let words = [
        ("allsign", "AllSign API keys", "New key"),
        ("insigner", "inSigner API keys", "Create API key"),
        (
            "yousign",
            "Yousign API keys",
            "Full access: read, create, update and delete",
        ),
        ("iusign", "IUSign API keys", "Generate new key"),
        ("dropbox-sign", "Dropbox Sign API keys", "Generate key"),
    ];
    for (profile, name, word) in words {
        let server = Server::of(profile);
        let cookie = sign_in(&server, "/dashboard", "owner");
        let text = get(&server, "/dashboard?page=issue", &cookie).text();
        assert!(
            text.contains(name) && text.contains(word),
            "{profile}: {text}"
        );
    }
}
