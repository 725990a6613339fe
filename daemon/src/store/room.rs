//! The size of the database's file: after an outage, most of it may be free pages.

use super::{Result, Store};

/// Free pages of fewer bytes than this are kept for reuse.
const FEW_BYTES: u64 = 8 << 20;

impl Store {
    /// Returns free pages to the file system if they are most of the file and nothing waits. Returns how many bytes.
    /// Takes about as long as writing the remaining pages: at most twice the size of the database is written.
    ///
    /// # Errors
    /// If there is no room for a copy of the remaining pages, or the database accepts no changes.
    pub fn give_back(&mut self) -> Result<Option<u64>> {
        let sql = "SELECT page_count * page_size, freelist_count * page_size
                   FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
        let (all, unused): (i64, i64) =
            self.db.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (all, unused) = (all as u64, unused as u64);
        if unused < FEW_BYTES || unused < all / 2 || self.something_waits()? {
            return Ok(None);
        }
        // The copy is not kept in memory. It contains no conversation, because nothing waits.
        self.db.execute_batch("PRAGMA temp_store=FILE")?;
        let done = self.db.execute_batch("VACUUM");
        self.db.execute_batch("PRAGMA temp_store=MEMORY")?;
        done?;
        self.empty_log();
        Ok(Some(unused))
    }

    /// True while a span or an image waits.
    fn something_waits(&self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM outbox) OR EXISTS (SELECT 1 FROM media_link)";
        self.db.prepare_cached(sql)?.query_row([], |row| row.get(0))
    }
}
