//! A whole transcript → the spans a replay of it would send, without daemon or database.

use std::path::{Path, PathBuf};

use crate::{
    agents,
    dialect::{OutSpan, langfuse::Shared},
    hook::Options,
    redact::{Counts, Rules},
    trace,
    transcript::{
        lines::{Line, Lines},
        reader::{CHUNK, Transcript, Unreadable},
        record,
    },
    turn::{Assembler, Scope, Turn},
};

/// Reads the transcript at `path` and hands the spans of each turn, root first, to `each`; those of its subagents follow.
///
/// # Errors
/// If the file cannot be read.
pub fn turns(
    path: &Path,
    session_id: &str,
    options: &Options,
    rules: &Rules,
    mut each: impl FnMut(Vec<OutSpan>),
) -> Result<(), Unreadable> {
    let mut launches = Vec::new();
    let end = walk(path, session_id, |turn| launches.extend(agents::closed_launches(&turn)))?;
    let roots: Vec<PathBuf> = path.parent().map(Path::to_path_buf).into_iter().collect();
    launches.extend(end.open().into_iter().flat_map(agents::closed_launches));
    let agents = agents::all(path, &roots, launches, end.open());
    let mut tell = |turn: &Turn| {
        let own = std::iter::once(turn).chain(agents.get(&turn.key).into_iter().flatten());
        each(own.flat_map(|turn| spans(turn, session_id, options, rules)).collect());
    };
    let end = walk(path, session_id, |turn| tell(&turn))?;
    if let Some(turn) = end.open() {
        tell(turn);
    }
    Ok(())
}

/// Hands every turn that is closed to `each`; the last one is still open in what comes back.
fn walk(path: &Path, session_id: &str, mut each: impl FnMut(Turn)) -> Result<Assembler, Unreadable> {
    let mut file = Transcript::open(path)?;
    let mut lines = Lines::at(0);
    let mut assembler = Assembler::new(session_id, 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(assembler);
        }
        lines.feed(&buffer[..n], |offset, line| {
            if let Line::Whole(bytes) = line
                && let Ok(record) = record::parse(bytes)
                && let Some(turn) = assembler.push(record, offset)
            {
                each(turn);
            }
        });
    }
}

fn spans(turn: &Turn, session_id: &str, options: &Options, rules: &Rules) -> Vec<OutSpan> {
    let mut shared = Shared::new(turn, session_id, options);
    let redactor = (!options.unredacted).then(|| &**rules);
    let mut counts = Counts::new();
    redactor.iter().for_each(|redactor| shared.redact(redactor, &mut counts));
    let mut spans: Vec<_> =
        trace::spans(turn, Scope::Final, options.semantics, None).iter().map(|span| shared.encode(span)).collect();
    if let Some(redactor) = redactor {
        spans.iter_mut().for_each(|span| span.redact(shared.len(), redactor, &mut counts));
    }
    spans
}
