//! Tests of the corpus itself: a row fails, with its name and for every adapter, if one part of its
//! expected response is altered.

use crate::all_rows;
use crate::row::{Row, parse};
use crate::run::{difference, run};
use crate::wire::Answer;

fn row(name: &str) -> Row {
    all_rows().into_iter().find(|row| row.name == name).unwrap()
}

/// Returns every way to alter one part of a response.
fn alterations(lines: &[String]) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let body = lines
        .iter()
        .position(String::is_empty)
        .unwrap_or(lines.len());
    for at in 0..lines.len() {
        let changed = |to: String| {
            let mut lines = lines.to_vec();
            lines[at] = to;
            lines
        };
        if at == body {
            continue;
        }
        all.push(changed(if at == 0 {
            "418".into()
        } else {
            format!("{}x", lines[at])
        }));
        if at > 0 && at < body {
            // A field that is missing, has another name, or occurs twice.
            let without = lines
                .iter()
                .enumerate()
                .filter(|(line, _)| *line != at)
                .map(|(_, line)| line.clone());
            all.push(without.collect());
            all.push(changed(format!("x-{}", lines[at])));
            let mut twice = lines.to_vec();
            twice.insert(at, lines[at].clone());
            all.push(twice);
        }
    }
    all.push(lines[..body].to_vec());
    all
}

#[actix_web::test]
async fn a_row_that_is_altered_in_one_thing_fails_for_every_adapter() {
    let right = row("one too many");
    run(&right).await.unwrap();
    let alterations = alterations(&right.answers[0].1);
    assert!(alterations.len() > 15, "{}", alterations.len());
    for lines in alterations {
        let mut wrong = right.clone();
        wrong.answers[0].1.clone_from(&lines);
        let told = run(&wrong).await.expect_err(&lines.join("\n"));
        for adapter in ["Tower", "Axum", "Actix"] {
            assert!(
                told.contains(&format!("=== one too many ({adapter}, ")),
                "{told}"
            );
        }
    }
}

#[actix_web::test]
async fn a_row_with_another_request_fails() {
    let right = row("a valid key passes");
    let mut other_house = right.clone();
    other_house.fixture = "limited".into();
    let mut other_request = right.clone();
    other_request.request = row("no credentials: a challenge without an error").request;
    let mut other_past = row("a moment too early");
    other_past
        .given
        .push(crate::row::Given::Clock(std::time::Duration::from_millis(
            1,
        )));
    for wrong in [other_house, other_request, other_past] {
        run(&wrong).await.unwrap_err();
    }
}

#[test]
fn lines_of_one_field_are_compared_in_their_order_and_those_of_several_in_none() {
    let answer = |lines: &[&str]| {
        Answer::of_lines(&lines.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let one = answer(&["401", "a: 1", "b: 1", "b: 2", "", "x"]);
    assert_eq!(
        difference(&one, &answer(&["401", "b: 1", "a: 1", "b: 2", "", "x"])),
        None
    );
    let told = difference(&one, &answer(&["401", "a: 1", "b: 2", "b: 1", "", "x"])).unwrap();
    assert!(told.contains("- b: 1"), "{told}");
    let told = difference(&one, &answer(&["401", "a: 1", "b: 1", "b: 2", "", "y"])).unwrap();
    assert_eq!(told, "- x\n+ y\n");
}

#[test]
fn a_row_is_parsed_as_written() {
    let rows = parse(
        "for readers\n\n=== a\n# why\nin neutral\ngiven 2 x {reader} /any\ngiven clock +500ms\n\
         > POST /\\x41 HTTP/1.1\n> X: {3*a}{b64 a:}\\t\n>\n> b\n< 200\n< y: z\n<\n< body\n\
         <actix 400\n! differs\n= set\n\n=== b\nin ways\n> GET / HTTP/1.1\n\
         > hOST: own\n> cONNECTION: keep-alive\n< 401\n",
    );
    let [a, b] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    assert_eq!(
        String::from_utf8_lossy(&a.request),
        "POST /A HTTP/1.1\r\nX: aaaYTo=\t\r\nHost: corpus\r\nConnection: close\r\n\r\nb"
    );
    assert_eq!(
        (a.given.len(), a.reason.as_str(), a.setting.as_str()),
        (2, "differs ", "set ")
    );
    assert_eq!(
        (a.fixture.as_str(), b.fixture.as_str()),
        ("neutral", "ways")
    );
    assert_eq!((a.is_over_http_2(), b.is_over_http_2()), (false, false));
    assert_eq!(a.answer(crate::row::Adapter::Actix), ["400"]);
    assert_eq!(
        a.answer(crate::row::Adapter::Axum),
        ["200", "y: z", "", "body"]
    );
    assert_eq!(
        String::from_utf8_lossy(&b.request),
        "GET / HTTP/1.1\r\nhOST: own\r\ncONNECTION: keep-alive\r\n\r\n"
    );
}
