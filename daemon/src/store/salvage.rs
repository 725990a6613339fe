//! Takes over what can still be read of a damaged database.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, types::Value};

use super::{Result, is_of_the_disk};

/// What is worth taking over: table, columns, key, condition. Positions are not: the spans between them and the transcripts'
/// beginnings may be among what cannot be read, so transcripts are read again, and what was delivered is known by its id.
const WORTHY: &[(&str, &str, &str, &str)] = &[
    (
        "destination",
        "id, kind, base_url, public_key, state, next_at_ms, last_success_ms, delivered, rejected",
        "id",
        "1",
    ),
    ("trusted", "base_url, at_ms", "base_url", "1"),
    ("paused", "dir", "dir", "1"),
    ("silent", "trace_id", "trace_id", "1"),
    ("begun", "at_ms", "at_ms", "1"),
    ("imported", "session_id, last_line, turn_count", "session_id", "1"),
    ("inbox", "seq, id, hint", "seq", "1"),
    (
        "session",
        "session_id, transcript, dev, ino, cursor, closed, turns, open_turn, hint, updated_ms",
        "session_id",
        "json_valid(hint)",
    ),
    ("exported", "destination, trace_id, span_id, delivered", "destination, trace_id, span_id", "delivered = 1"),
    ("call", "destination, id, trace_id", "destination, id", "1"),
    ("dead_letter", "id, destination, span_id, reason, body, at_ms", "id", "1"),
    ("media", "destination, hash, kind, length, bytes", "rowid", "1"),
    ("media_link", "seq, destination, hash, trace_id, span_id, field, queued_ms, tries", "seq", "1"),
    ("redacted", "rule, count", "rule", "1"),
    ("skipped", "reason, count", "reason", "1"),
];

/// Copies rows from the database at `damaged` until each table's first unreadable one, and from its other end as well.
/// What cannot be had is left; only where it cannot be written this is an error.
pub(super) fn take_over(db: &mut Connection, damaged: &Path) -> Result<()> {
    // Reading only leaves the evidence as it is.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let Ok(old) = Connection::open_with_flags(damaged, flags) else { return Ok(()) };
    // Otherwise a file that was cut off is refused as a whole.
    let _ = old.execute_batch("PRAGMA writable_schema = ON");
    let tx = db.transaction()?;
    for (table, columns, key, condition) in WORTHY {
        let marks = vec!["?"; columns.split(',').count()].join(", ");
        let insert = format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})");
        let Ok(mut insert) = tx.prepare(&insert) else { continue };
        let mut taken = 0;
        for order in ["ASC", "DESC"] {
            let keys: Vec<String> = key.split(',').map(|column| format!("{column} {order}")).collect();
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
                            Err(error) if is_of_the_disk(&error) => return Err(error),
                            // A row that does not fit the table's rules is damaged too.
                            Err(_) => {}
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
    // What no server takes is not told again either.
    tx.execute(
        "INSERT OR IGNORE INTO exported (destination, trace_id, span_id)
         SELECT destination, unhex(body ->> 'trace_id'), unhex(span_id) FROM dead_letter WHERE json_valid(body)",
        [],
    )?;
    tx.commit()
}
