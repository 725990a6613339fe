//! Merges destinations and trusted addresses that were stored under several spellings of one address.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, params};

use super::{DestinationId, Result, checksum, is_whole, observations::HAS_ARRIVED, outbox::SELECT};
use cc_core::destination::{Kind, address::base_url};

/// Converts every stored address to the present canonical form.
pub(super) fn unite(db: &mut Connection) -> Result<()> {
    let mut rows: Vec<(DestinationId, String, String, String)> = db
        .prepare("SELECT id, kind, base_url, public_key FROM destination ORDER BY id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<Result<_>>()?;
    let canonical = |kind: &str, url: &str| Kind::named(kind)?.backend().address(url);
    rows.retain(|(_, kind, url, _)| canonical(kind, url).is_some());
    let mut first: HashMap<(String, String, String), DestinationId> = HashMap::new();
    let tx = db.transaction()?;
    for (id, kind, url, public_key) in &rows {
        let Some(canonical) = canonical(kind, url) else { continue };
        match first.get(&(kind.clone(), canonical.clone(), public_key.clone())) {
            Some(&keep) => merge(&tx, keep, *id)?,
            None => {
                first.insert((kind.clone(), canonical, public_key.clone()), *id);
            }
        }
    }
    for ((_, canonical, _), id) in &first {
        tx.execute("UPDATE destination SET base_url = ?1 WHERE id = ?2 AND base_url <> ?1", params![canonical, id])?;
    }
    // A table without kinds is older than all kinds but one.
    let known: HashSet<&String> = first.keys().map(|(_, canonical, _)| canonical).collect();
    for table in tables_with(&tx, "base_url")? {
        if table == "destination" {
            continue;
        }
        let urls: Vec<String> = tx
            .prepare(&format!("SELECT DISTINCT base_url FROM {table}"))?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_>>()?;
        for url in urls {
            if let Some(canonical) = base_url(&url).filter(|canonical| *canonical != url && !known.contains(&url)) {
                tx.execute(
                    &format!("UPDATE OR IGNORE {table} SET base_url = ? WHERE base_url = ?"),
                    [&canonical, &url],
                )?;
                tx.execute(&format!("DELETE FROM {table} WHERE base_url = ?"), [&url])?;
            }
        }
    }
    tx.commit()
}

/// Moves everything of the destination `gone` to `keep`.
fn merge(db: &Connection, keep: DestinationId, gone: DestinationId) -> Result<()> {
    // From here on each span records itself whether it arrived.
    db.execute(
        &format!("UPDATE exported SET delivered = 1 WHERE destination IN (?1, ?2) AND {HAS_ARRIVED}"),
        [keep, gone],
    )?;
    db.execute("UPDATE destination SET arrived = 0 WHERE id IN (?1, ?2)", [keep, gone])?;
    // A span delivered to either is delivered.
    db.execute(
        "UPDATE exported SET delivered = 1 WHERE destination = ?1 AND EXISTS (SELECT 1 FROM exported AS other
            WHERE other.destination = ?2 AND other.delivered = 1 AND (other.trace_id, other.span_id) = (exported.trace_id, exported.span_id))",
        [keep, gone],
    )?;
    // A hold of either is kept.
    db.execute(
        "UPDATE destination SET held_by = coalesce(held_by, (SELECT held_by FROM destination WHERE id = ?2)),
            own = max(own, (SELECT own FROM destination WHERE id = ?2)) WHERE id = ?1",
        [keep, gone],
    )?;
    db.execute("UPDATE destination SET own = 0 WHERE id = ? AND held_by IS NOT NULL", [keep])?;
    let mut waiting = Vec::new();
    {
        let mut rows = db.prepare(SELECT)?;
        let mut rows = rows.query([gone])?;
        while let Some(row) = rows.next()? {
            // A damaged row stays damaged.
            let noted: Option<i64> = row.get(4)?;
            let span_id: Vec<u8> = row.get(2)?;
            let sum = match is_whole(row)? && noted.is_some() {
                true => Some(checksum(keep, &span_id, super::bytes_of(row, 3)?)),
                false => noted,
            };
            waiting.push((row.get::<_, i64>(0)?, sum));
        }
    }
    for (seq, sum) in waiting {
        let sql = "UPDATE OR IGNORE outbox SET destination = ?, checksum = ? WHERE destination = ? AND seq = ?";
        db.execute(sql, params![keep, sum, gone, seq])?;
    }
    for table in tables_with(db, "destination")? {
        db.execute(&format!("UPDATE OR IGNORE {table} SET destination = ? WHERE destination = ?"), [keep, gone])?;
        db.execute(&format!("DELETE FROM {table} WHERE destination = ?"), [gone])?;
    }
    db.execute(
        "UPDATE destination SET delivered = destination.delivered + other.delivered, rejected = min(destination.rejected, destination.delivered) + min(other.rejected, other.delivered),
            last_success_ms = max(coalesce(destination.last_success_ms, other.last_success_ms),
                coalesce(other.last_success_ms, destination.last_success_ms))
         FROM (SELECT * FROM destination WHERE id = ?2) AS other WHERE destination.id = ?1",
        [keep, gone],
    )?;
    db.execute("DELETE FROM destination WHERE id = ?", [gone]).map(drop)
}

fn tables_with(db: &Connection, column: &str) -> Result<Vec<String>> {
    db.prepare(
        "SELECT tables.name FROM sqlite_schema AS tables JOIN pragma_table_info(tables.name) AS columns
         WHERE tables.type = 'table' AND columns.name = ?",
    )?
    .query_map([column], |row| row.get(0))?
    .collect()
}
