//! The size of the database's file: after an outage, most of it may be free pages.

use super::{Result, Store};

/// Fewer bytes of free pages than this are kept: they are used again.
const FEW_BYTES: u64 = 8 << 20;

impl Store {
    /// Gives free pages back to the file system where they are most of the file and nothing waits. Returns how many bytes. Takes
    /// about as long as writing what is left: the same again for a database of twice the size at most.
    ///
    /// # Errors
    /// If there is no room for a copy of what is left, or the database takes no changes.
    pub fn give_back(&mut self) -> Result<Option<u64>> {
        let sql = "SELECT page_count * page_size, freelist_count * page_size
                   FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
        let (all, unused): (i64, i64) =
            self.db.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (all, unused) = (all as u64, unused as u64);
        if unused < FEW_BYTES || unused < all / 2 || self.something_waits()? {
            return Ok(None);
        }
        // The copy is not kept in memory. It holds no conversation, because nothing waits.
        self.db.execute_batch("PRAGMA temp_store=FILE")?;
        let done = self.db.execute_batch("VACUUM");
        self.db.execute_batch("PRAGMA temp_store=MEMORY")?;
        done?;
        self.empty_log();
        Ok(Some(unused))
    }

    /// True while a span waits, or an image.
    fn something_waits(&self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM outbox) OR EXISTS (SELECT 1 FROM media_link)";
        self.db.prepare_cached(sql)?.query_row([], |row| row.get(0))
    }
}
