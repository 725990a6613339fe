//! Copies the readable rows of a damaged database.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, types::Value};

use super::{Error, Result};

/// Tables that are not copied, or only partly. Waiting spans and positions are not: spans in between may be unreadable,
/// so transcripts are read again, and delivered spans are recognised by their ids. All other tables are copied,
/// including future ones.
const CONDITIONS: [(&str, &str); 6] = [
    ("observation", "0"),
    ("outbox", "0"),
    ("agent", "0"),
    ("follower", "0"),
    ("session", "json_valid(hint)"),
    ("exported", "delivered = 1"),
];

/// The rows of `exported` that are copied if each destination has the number up to which all observations arrived. That
/// number is read first: one unreadable row of it must not end the reading of all others. In a file that was cut off
/// within a row, SQLite reads zeros: a number that may have lost its last byte does not count.
const ARRIVED: &str = "delivered = 1 OR delivered = 0 AND observation & 255
    AND observation <= (SELECT arrived FROM temp.arrived WHERE id = destination)";

/// A table, and which of its rows are copied.
struct Table {
    name: String,
    columns: Vec<String>,
    /// The columns by which its rows are ordered.
    key: Vec<String>,
    condition: &'static str,
}

/// The tables of the new database that the old one has too.
fn tables(new: &Connection, old: &Connection) -> Result<Vec<Table>> {
    let names: Vec<String> = new
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_>>()?;
    let columns = |db: &Connection, table: &str| -> Result<Vec<(String, i64)>> {
        let mut columns = db.prepare("SELECT name, pk FROM pragma_table_info(?)")?;
        columns.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
    };
    let mut tables = Vec::new();
    for name in names {
        let old: Vec<String> = columns(old, &name).unwrap_or_default().into_iter().map(|(column, _)| column).collect();
        let mut all = columns(new, &name)?;
        // An earlier version had fewer columns.
        let known: Vec<String> = all.iter().map(|(name, _)| name.clone()).filter(|name| old.contains(name)).collect();
        all.retain(|(_, key)| *key > 0);
        all.sort_by_key(|(_, key)| *key);
        let mut key: Vec<String> = all.into_iter().map(|(name, _)| name).collect();
        if key.is_empty() {
            key.push("rowid".into());
        }
        let condition = CONDITIONS.iter().find(|(table, _)| *table == name).map_or("1", |(_, condition)| condition);
        if !known.is_empty() && condition != "0" {
            tables.push(Table { name, columns: known, key, condition });
        }
    }
    Ok(tables)
}

/// Copies rows from the database at `damaged`: for each table from the first up to an unreadable one, and from the last
/// backwards. Unreadable rows are left out; only a failed write is an error.
pub(super) fn take_over(db: &mut Connection, damaged: &Path) -> std::result::Result<(), Error> {
    // Reading only keeps the evidence unchanged.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(old) = Connection::open_with_flags(damaged, flags) else { return Ok(()) };
    // Without this a file that was cut off is refused as a whole.
    let _ = old.execute_batch("PRAGMA writable_schema = ON");
    // Versions before the ninth do not have this column.
    let arrived = "PRAGMA temp_store = MEMORY; CREATE TEMP TABLE arrived AS SELECT id, arrived FROM main.destination";
    let is_numbered = old.execute_batch(arrived).is_ok();
    let tx = db.transaction()?;
    for Table { name: table, columns, key, condition } in tables(&tx, &old)? {
        let condition = if table == "exported" && is_numbered { ARRIVED } else { condition };
        let marks = vec!["?"; columns.len()].join(", ");
        let columns = columns.join(", ");
        let insert = format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})");
        let Ok(mut insert) = tx.prepare(&insert) else { continue };
        let mut taken = 0;
        for order in ["ASC", "DESC"] {
            let keys: Vec<String> = key.iter().map(|column| format!("{column} {order}")).collect();
            let select = format!("SELECT {columns} FROM {table} WHERE {condition} ORDER BY {}", keys.join(", "));
            let Ok(mut select) = old.prepare(&select) else { break };
            let width = select.column_count();
            let Ok(mut rows) = select.query([]) else { break };
            let whole = loop {
                match rows.next() {
                    Ok(Some(row)) => {
                        let values: Result<Vec<Value>> = (0..width).map(|column| row.get(column)).collect();
                        let Ok(values) = values else { continue };
                        match insert.execute(rusqlite::params_from_iter(values)) {
                            Ok(rows) => taken += rows,
                            Err(error) => match Error::from(error) {
                                error if error.is_passing() => return Err(error),
                                // A row that violates the table's constraints is damaged too.
                                _ => {}
                            },
                        }
                    }
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            if whole {
                break;
            }
        }
        tracing::info!(table, rows = taken, "taken over from the damaged database");
    }
    // Earlier versions counted it under this name only.
    tx.execute(
        "UPDATE destination SET held_by = 'a settings file that others can write names it'
         WHERE state = 'held' AND held_by IS NULL AND NOT own",
        [],
    )?;
    // Dead letters are not sent again either.
    tx.execute(
        "INSERT OR IGNORE INTO exported (destination, trace_id, span_id)
         SELECT destination, unhex(coalesce(body ->> 'trace_id', body ->> '$.observation.trace_id')), unhex(span_id)
         FROM dead_letter WHERE json_valid(body)",
        [],
    )?;
    Ok(tx.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// A value in every column of every table is copied, whichever version adds them.
    #[test]
    fn every_table_is_taken_over_but_for_those_that_are_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| Store::open(&dir.path().join(name)).unwrap().store;
        let old = open("old.db").db;
        let names: Vec<String> = old
            .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
            .unwrap()
            .query_map([], |row| row.get(0))
            .unwrap()
            .collect::<Result<_>>()
            .unwrap();
        assert!(names.len() > 15, "{names:?}");
        old.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
        for name in &names {
            let columns: Vec<(String, String)> = old
                .prepare("SELECT name, type FROM pragma_table_info(?)")
                .unwrap()
                .query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))
                .unwrap()
                .collect::<Result<_>>()
                .unwrap();
            let value = |(column, kind): &(String, String)| match &**kind {
                _ if column == "delivered" => "1".to_owned(),
                "INTEGER" => "7".to_owned(),
                "BLOB" => "x'07'".to_owned(),
                _ => r#"'{"seven": 7}'"#.to_owned(),
            };
            let names: Vec<_> = columns.iter().map(|(column, _)| column.clone()).collect();
            let values: Vec<_> = columns.iter().map(value).collect();
            let insert = format!("INSERT INTO {name} ({}) VALUES ({})", names.join(", "), values.join(", "));
            old.execute(&insert, []).unwrap();
        }
        drop(old);
        let mut new = open("new.db").db;
        take_over(&mut new, &dir.path().join("old.db")).unwrap();
        let all = |db: &Connection, table: &str| -> Vec<Vec<Value>> {
            let mut rows = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let width = rows.column_count();
            rows.query_map([], |row| (0..width).map(|column| row.get(column)).collect())
                .unwrap()
                .map(|row| row.unwrap())
                .collect()
        };
        let old = Connection::open(dir.path().join("old.db")).unwrap();
        for name in names {
            let expect = if ["observation", "outbox", "agent", "follower"].contains(&&*name) {
                Vec::new()
            } else {
                all(&old, &name)
            };
            let found = all(&new, &name);
            assert!(
                expect.iter().all(|row| found.contains(row)) && expect.is_empty() == found.is_empty(),
                "{name}: {found:?}"
            );
        }
    }
}
