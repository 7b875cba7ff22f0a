//! Values of statements and rows, the same for both databases.
//!
//! A row is read column by column, in the order of its statement. A column with an unexpected value
//! is an error that names the row and the column, but does not include the value.

use async_trait::async_trait;
use serde::Serialize;
use sqlx::query::Query;
use sqlx::{ColumnIndex, Decode, Encode, Row as _, Type, TypeInfo, ValueRef};

use crate::fault::Fault;
use crate::sql::Dialect;

/// A connection, in a transaction or not.
#[async_trait]
pub(crate) trait Session: Send {
    /// The statements that differ between the two databases.
    fn dialect(&self) -> &'static Dialect;

    /// Returns all rows of a query.
    async fn rows(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Vec<Row>, Fault>;

    /// Returns one of the rows of a query, if it has any.
    async fn first(&mut self, sql: &'static str, values: Vec<Value>) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// Makes a change; returns the number of affected rows.
    async fn change(&mut self, sql: &'static str, values: Vec<Value>) -> Result<u64, Fault>;

    /// Runs several statements without values.
    async fn script(&mut self, sql: &'static str) -> Result<(), Fault>;
}

/// A value to bind, or to be read from JSON.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Bytes(Option<Vec<u8>>),
}

macro_rules! value_from {
    ($($type:ty => $make:expr),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                let make: fn($type) -> Value = $make;
                make(value)
            }
        }
    )*};
}
value_from! {
    i64 => |value| Value::Int(Some(value)),
    bool => |value| Value::Int(Some(i64::from(value))),
    Option<i64> => Value::Int,
    String => |value| Value::Text(Some(value)),
    Option<String> => Value::Text,
    Vec<u8> => |value| Value::Bytes(Some(value)),
    Option<Vec<u8>> => Value::Bytes,
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

/// The value of one column of a row; `None` if its type is one that this crate does not write.
pub(crate) type Cell = Option<Value>;

/// A row that is not decoded yet.
#[derive(Clone)]
pub(crate) struct Row {
    table: &'static str,
    name: String,
    cells: std::vec::IntoIter<Cell>,
}

impl Row {
    pub(crate) fn new(cells: Vec<Cell>) -> Self {
        Self {
            table: "a table",
            name: "?".into(),
            cells: cells.into_iter(),
        }
    }

    /// The same row with a name for errors.
    pub(crate) fn of(mut self, table: &'static str, name: &str) -> Self {
        self.rename(table, name);
        self
    }

    /// Names the row for errors. A database may contain anything, so that only the beginning is
    /// shown.
    pub(crate) fn rename(&mut self, table: &'static str, name: &str) {
        self.table = table;
        self.name = name.chars().take(128).collect();
    }

    /// The error for a column that cannot be decoded.
    pub(crate) fn corrupt(&self, column: &str) -> Fault {
        Fault::Corrupt(format!(
            "{} row {:?}, column {column}",
            self.table, self.name
        ))
    }

    /// A column that is not decoded yet, by the number of columns before it.
    pub(crate) fn peek(&self, column: usize) -> Option<&Value> {
        self.cells.as_slice().get(column)?.as_ref()
    }

    /// The same row with its first column, a JSON array of integers and strings, replaced by the
    /// elements.
    pub(crate) fn unpacked(mut self) -> Result<Self, Fault> {
        let packed = self.text("packed")?;
        let elements: Vec<serde_json::Value> =
            serde_json::from_str(&packed).map_err(|_| self.corrupt("packed"))?;
        let cell = |element| match element {
            serde_json::Value::Null => Some(Value::Text(None)),
            serde_json::Value::Number(number) => number.as_i64().map(Value::from),
            serde_json::Value::String(text) => Some(Value::from(text)),
            _ => None,
        };
        let cells = elements.into_iter().map(cell).chain(self.cells);
        self.cells = cells.collect::<Vec<_>>().into_iter();
        Ok(self)
    }

    /// The next column, undecoded.
    pub(crate) fn value(&mut self, column: &str) -> Result<Value, Fault> {
        self.cells
            .next()
            .flatten()
            .ok_or_else(|| self.corrupt(column))
    }

    pub(crate) fn maybe_int(&mut self, column: &str) -> Result<Option<i64>, Fault> {
        match self.value(column)? {
            Value::Int(value) => Ok(value),
            // The type of NULL depends on the database.
            Value::Text(None) | Value::Bytes(None) => Ok(None),
            _ => Err(self.corrupt(column)),
        }
    }

    pub(crate) fn maybe_text(&mut self, column: &str) -> Result<Option<String>, Fault> {
        match self.value(column)? {
            Value::Text(value) => Ok(value),
            Value::Int(None) | Value::Bytes(None) => Ok(None),
            _ => Err(self.corrupt(column)),
        }
    }

    pub(crate) fn maybe_bytes(&mut self, column: &str) -> Result<Option<Vec<u8>>, Fault> {
        match self.value(column)? {
            Value::Bytes(value) => Ok(value),
            Value::Int(None) | Value::Text(None) => Ok(None),
            _ => Err(self.corrupt(column)),
        }
    }

    pub(crate) fn int(&mut self, column: &str) -> Result<i64, Fault> {
        self.maybe_int(column)?.ok_or_else(|| self.corrupt(column))
    }

    pub(crate) fn text(&mut self, column: &str) -> Result<String, Fault> {
        self.maybe_text(column)?.ok_or_else(|| self.corrupt(column))
    }

    pub(crate) fn bytes(&mut self, column: &str) -> Result<Vec<u8>, Fault> {
        self.maybe_bytes(column)?
            .ok_or_else(|| self.corrupt(column))
    }
}

/// A statement with its values.
pub(crate) fn bound<D: sqlx::Database>(
    dialect: &'static Dialect,
    sql: &'static str,
    values: Vec<Value>,
) -> Query<'static, D, D::Arguments>
where
    Option<i64>: Encode<'static, D> + Type<D>,
    Option<String>: Encode<'static, D> + Type<D>,
    Option<Vec<u8>>: Encode<'static, D> + Type<D>,
{
    #[cfg(debug_assertions)]
    assert!(
        crate::sql::is_known(dialect, sql),
        "a statement that is not in the registry: {sql}"
    );
    #[cfg(not(debug_assertions))]
    let _ = dialect;
    let query = sqlx::query(sql);
    values.into_iter().fold(query, |query, value| match value {
        Value::Int(value) => query.bind(value),
        Value::Text(value) => query.bind(value),
        Value::Bytes(value) => query.bind(value),
    })
}

/// A row from the database, each cell by its database type.
pub(crate) fn cells<D: sqlx::Database>(row: &D::Row) -> Row
where
    usize: ColumnIndex<D::Row>,
    i64: for<'r> Decode<'r, D>,
    String: for<'r> Decode<'r, D>,
    Vec<u8>: for<'r> Decode<'r, D>,
{
    let cell = |place| {
        let value = row.try_get_raw(place).ok()?;
        if value.is_null() {
            return Some(Value::Text(None));
        }
        let decode = match value.type_info().name() {
            "INTEGER" | "INT8" => |value| i64::decode(value).ok().map(Value::from),
            "TEXT" => |value| String::decode(value).ok().map(Value::from),
            "BLOB" | "BYTEA" => |value| Vec::<u8>::decode(value).ok().map(Value::from),
            _ => |_| None,
        };
        decode(value)
    };
    Row::new((0..row.len()).map(cell).collect())
}
