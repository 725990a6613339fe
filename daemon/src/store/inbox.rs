//! Stored events until they are settled.

use rusqlite::{Connection, OptionalExtension};

use super::{Result, Store, count};
use cc_core::hook::{Hint, Source};

/// The name under which unreadable events are counted.
const UNREADABLE: &str = "event_unreadable";

/// The pending events when the daemon starts.
#[derive(Debug, Default)]
pub struct Inbox {
    /// From hooks and history, oldest first.
    pub hints: Vec<Hint>,
    /// The ids of events for which a session is read again from its start; there may be one for every session.
    pub again: Vec<String>,
}

impl Store {
    /// All pending events. Unreadable ones are counted and set aside, so that nothing waits for them; they return with a
    /// version that can read them.
    ///
    /// # Errors
    /// If the database cannot be read or changed.
    pub fn sort_inbox(&mut self) -> Result<Inbox> {
        let tx = self.db.transaction()?;
        for id in unreadable(&tx, "inbox")? {
            tx.execute("INSERT OR REPLACE INTO inbox_aside SELECT id, hint FROM inbox WHERE seq = ?", [id])?;
            tx.execute("DELETE FROM inbox WHERE seq = ?", [id])?;
            count(&tx, UNREADABLE, 1)?;
        }
        let back: Vec<Hint> = rows(&tx, "SELECT rowid, CAST(hint AS BLOB) FROM inbox_aside")?
            .into_iter()
            .filter_map(|(_, hint)| serde_json::from_slice(&hint?).ok())
            .collect();
        for hint in back {
            tx.execute(
                "INSERT OR IGNORE INTO inbox (id, hint) SELECT id, hint FROM inbox_aside WHERE id = ?",
                [&hint.id],
            )?;
            tx.execute("DELETE FROM inbox_aside WHERE id = ?", [&hint.id])?;
        }
        tx.commit()?;
        let mut inbox = Inbox { hints: self.inbox()?, again: Vec::new() };
        inbox.hints.retain(|hint| {
            let again = hint.source == Source::Reread;
            if again {
                inbox.again.push(hint.id.clone());
            }
            !again
        });
        Ok(inbox)
    }

    /// `None` if it is settled.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn event(&self, id: &str) -> Result<Option<Hint>> {
        let hint: Option<String> = self
            .db
            .prepare_cached("SELECT hint FROM inbox WHERE id = ?")?
            .query_row([id], |row| row.get(0))
            .optional()?;
        Ok(hint.and_then(|hint| serde_json::from_str(&hint).ok()))
    }
}

/// The rows of a table of events that this version cannot read.
fn unreadable(db: &Connection, table: &str) -> Result<Vec<i64>> {
    let rows = rows(db, &format!("SELECT seq, CAST(hint AS BLOB) FROM {table}"))?;
    let is_bad =
        |hint: &Option<Vec<u8>>| hint.as_ref().is_none_or(|hint| serde_json::from_slice::<Hint>(hint).is_err());
    Ok(rows.into_iter().filter(|(_, hint)| is_bad(hint)).map(|(seq, _)| seq).collect())
}

fn rows(db: &Connection, sql: &str) -> Result<Vec<(i64, Option<Vec<u8>>)>> {
    db.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_counted_and_waits_for_a_version_that_can() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&dir.path().join("state.db")).unwrap().store;
        let good = crate::engine::any_hint("good");
        let later = serde_json::to_string(&crate::engine::any_hint("later")).unwrap();
        let again = Hint { source: Source::Reread, ..crate::engine::any_hint("again") };
        store.accept(&[good, again], &[]).unwrap();
        let newer = later.replace("\"Ended\"", "\"Unheard\"");
        for (id, hint) in [("later", &*newer), ("torn", "{\"id\":\"torn\""), ("empty", ""), ("list", "[]")] {
            store.db.execute("INSERT INTO inbox (id, hint) VALUES (?, ?)", [id, hint]).unwrap();
        }
        // Bytes that are no text, as a damaged page may hold.
        store.db.execute("INSERT INTO inbox (id, hint) VALUES ('bytes', CAST(x'ff00fe' AS TEXT))", []).unwrap();
        let read = |store: &mut Store| {
            let inbox = store.sort_inbox().unwrap();
            let hints: Vec<_> = inbox.hints.into_iter().map(|hint| hint.id).collect();
            let counts = store.counts().unwrap();
            (hints, inbox.again, counts.inbox, counts.skipped.get(UNREADABLE).copied())
        };
        let expect = (vec!["good".to_owned()], vec!["again".to_owned()], 2, Some(5));
        assert_eq!(read(&mut store), expect);
        assert_eq!(read(&mut store), expect, "counted once");
        store.db.execute("UPDATE inbox_aside SET hint = ? WHERE id = 'later'", [later]).unwrap();
        let back = read(&mut store);
        assert_eq!((back.0.len(), back.2, back.3), (2, 3, Some(5)), "this version reads it");
    }
}
