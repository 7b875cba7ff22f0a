//! Which database and tables a connection uses.

use std::sync::OnceLock;

use async_trait::async_trait;

use super::Operation;
use crate::fault::{Fault, Refusal};
use crate::share::Purpose;
use crate::value::Session;

/// Names the tables that a connection uses: the same text on two connections means the same tables.
pub(crate) struct Place;

#[async_trait]
impl Operation for Place {
    type Answer = String;
    const PURPOSE: Purpose = Purpose::Request;

    async fn run(&self, session: &mut dyn Session) -> Result<String, Fault> {
        let place = session.dialect().place;
        let row = session.first(place, Vec::new()).await?;
        row.map_or_else(
            || Ok(String::new()),
            |row| row.of("a database", "main").text("place"),
        )
    }
}

/// An error if a connection of the host does not use the tables of the store.
pub(crate) async fn check_place(
    session: &mut dyn Session,
    known: &OnceLock<String>,
) -> Result<(), Fault> {
    let store = known.get().ok_or(Refusal::NotMigrated)?.clone();
    let host = Place.run(session).await?;
    if host == store && !host.is_empty() {
        return Ok(());
    }
    Err(Refusal::Elsewhere { host, store }.into())
}
