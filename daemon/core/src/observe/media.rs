//! Positions of images and documents in text, kept while secrets around them are masked.

use serde_json::Value as Json;

use crate::{
    media::{Hash, Media},
    observation::{Content, MediaRef, Output, Part},
    project::Capture,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The marker that stands for an image or document while the surrounding text is masked.
const MARK: &str = "@@@media:";

fn mark(hash: &Hash) -> String {
    format!("{MARK}id={}|source=bytes@@@", URL_SAFE_NO_PAD.encode(hash))
}

/// The pieces of a text, each with the image or document that follows it.
pub(super) fn pieces<'t, 'm>(text: &'t str, media: &'m [Media]) -> Vec<(&'t str, Option<&'m Media>)> {
    let mut from = 0;
    let mut piece = |to: usize| {
        // The texts of two blocks are joined by a newline.
        let piece = text.get(from..to).unwrap_or_default();
        let piece = if from > 0 { piece.strip_prefix('\n').unwrap_or(piece) } else { piece };
        from = to;
        piece
    };
    let mut pieces: Vec<_> = media.iter().map(|media| (piece(media.at), Some(media))).collect();
    pieces.push((piece(text.len()), None));
    pieces
}

/// `text` with the sizes of media if they may not leave.
pub(super) fn sized(text: String, capture: Capture, media: &[Media]) -> String {
    if capture == Capture::Full || media.is_empty() {
        return text;
    }
    let sizes = media.iter().map(|media| format!("[{}, {} bytes]", media.kind, media.length));
    Some(text).filter(|text| !text.is_empty()).into_iter().chain(sizes).collect::<Vec<_>>().join(" ")
}

/// `text` with a marker in place of each of `media`, which are sorted by position.
pub(super) fn marked<'m>(text: &str, media: impl DoubleEndedIterator<Item = (usize, &'m Hash)>) -> String {
    let mut marked = text.to_owned();
    for (at, hash) in media.rev().filter(|(at, _)| text.is_char_boundary(*at)) {
        marked.insert_str(at, &mark(hash));
    }
    marked
}

/// Removes the markers from `text`, which was masked meanwhile, and returns where they were.
pub(super) fn unmarked(text: &str, media: &[Media]) -> Output {
    let mut output = Output { text: String::with_capacity(text.len()), media: Vec::new() };
    let mut rest = text;
    for media in media {
        let mark = mark(&media.hash);
        if let Some((before, after)) = rest.split_once(mark.as_str()) {
            output.text.push_str(before);
            output.media.push((output.text.len(), media.into()));
            rest = after;
        }
    }
    output.text.push_str(rest);
    output
}

/// The output of a tool as a message's content: text; or, with images and documents, the text of each block and its image or
/// document; or all of it as JSON.
pub(super) fn content(output: &Output) -> Content {
    if output.media.is_empty() {
        return Content::Text(output.text.clone());
    }
    let marked = marked(&output.text, output.media.iter().map(|(at, media)| (*at, &media.hash)));
    match serde_json::from_str::<Vec<Json>>(&marked) {
        Ok(blocks) => Content::Parts(blocks.iter().map(|block| part(block, output)).collect()),
        Err(_) => Content::Text(output.text.clone()),
    }
}

fn part(block: &Json, output: &Output) -> Part {
    let shown = |data: &str| -> Option<&MediaRef> {
        let mut all = output.media.iter().map(|(_, media)| media);
        all.find(|media| data == mark(&media.hash))
    };
    let medium = block["source"]["data"].as_str().filter(|data| data.starts_with(MARK)).and_then(shown);
    match (block["type"].as_str(), block["text"].as_str(), medium) {
        (Some("text"), Some(text), _) => Part::Text(text.to_owned()),
        (_, _, Some(medium)) => Part::Media(medium.clone()),
        _ => Part::Text(block.to_string()),
    }
}
