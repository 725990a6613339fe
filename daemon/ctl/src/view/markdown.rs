//! Markdown from a transcript → HTML, without embedded HTML, remote images, or links to anything but the web.

use maud::{Markup, PreEscaped, Render, html};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

use super::html::clean;

/// Maximum length of a formatted text in bytes; longer ones are shown unformatted.
const FORMATTED: usize = 256 << 10;

/// `text` is not trusted.
pub(super) fn markdown(text: &str) -> Markup {
    let text = clean(text);
    if text.len() > FORMATTED {
        return html! { pre { (text) } };
    }
    let mut out = String::with_capacity(text.len() * 2);
    let escaped = |text: &str, out: &mut String| text.render_to(out);
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    for event in Parser::new_ext(&text, options) {
        match event {
            Event::Start(tag) => out.push_str(&start(&tag)),
            Event::End(tag) => out.push_str(end(tag)),
            Event::Text(text) | Event::Html(text) | Event::InlineHtml(text) | Event::FootnoteReference(text) => {
                escaped(&text, &mut out);
            }
            Event::InlineMath(text) | Event::DisplayMath(text) => escaped(&text, &mut out),
            Event::Code(text) => {
                out.push_str("<code>");
                escaped(&text, &mut out);
                out.push_str("</code>");
            }
            Event::SoftBreak => out.push('\n'),
            Event::HardBreak => out.push_str("<br>"),
            Event::Rule => out.push_str("<hr>"),
            Event::TaskListMarker(done) => out.push_str(if done { "☑ " } else { "☐ " }),
        }
    }
    html! { div .md { (PreEscaped(out)) } }
}

fn start(tag: &Tag<'_>) -> String {
    let plain = |name: &str| format!("<{name}>");
    match tag {
        Tag::Paragraph => plain("p"),
        // The page has its own headings above.
        Tag::Heading { .. } => "<p class=\"h\">".to_owned(),
        Tag::BlockQuote(_) => plain("blockquote"),
        Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => "<pre tabindex=\"0\"><code>".to_owned(),
        Tag::List(Some(first)) => format!("<ol start=\"{first}\">"),
        Tag::List(None) => plain("ul"),
        Tag::Item => plain("li"),
        Tag::Table(_) => plain("table"),
        Tag::TableHead => plain("thead><tr"),
        Tag::TableRow => plain("tr"),
        Tag::TableCell => plain("td"),
        Tag::Emphasis => plain("em"),
        Tag::Strong => plain("strong"),
        Tag::Strikethrough => plain("s"),
        Tag::Link { dest_url, .. } if is_web(dest_url) => {
            let url = html! { a href=(dest_url) rel="noreferrer noopener nofollow" target="_blank" {} }.into_string();
            url.strip_suffix("</a>").unwrap_or_default().to_owned()
        }
        // The target is shown, but is no link.
        Tag::Link { dest_url, .. } => html! { a title=(dest_url) {} }.into_string().replace("</a>", ""),
        Tag::Image { dest_url, .. } => html! { "[image " (dest_url) ": " }.into_string(),
        _ => String::new(),
    }
}

fn end(tag: TagEnd) -> &'static str {
    match tag {
        TagEnd::Paragraph | TagEnd::Heading(_) => "</p>",
        TagEnd::BlockQuote(_) => "</blockquote>",
        TagEnd::CodeBlock => "</code></pre>",
        TagEnd::List(true) => "</ol>",
        TagEnd::List(false) => "</ul>",
        TagEnd::Item => "</li>",
        TagEnd::Table => "</table>",
        TagEnd::TableHead => "</tr></thead>",
        TagEnd::TableRow => "</tr>",
        TagEnd::TableCell => "</td>",
        TagEnd::Emphasis => "</em>",
        TagEnd::Strong => "</strong>",
        TagEnd::Strikethrough => "</s>",
        TagEnd::Link => "</a>",
        TagEnd::Image => "]",
        _ => "",
    }
}

/// True for a web address, which a browser does not run or open in another program.
fn is_web(url: &str) -> bool {
    let url = url.to_ascii_lowercase();
    (url.starts_with("https://") || url.starts_with("http://")) && !url.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_formatted_and_nothing_is_run() {
        for (text, expect) in [
            ("**a** `b<c`", "<p><strong>a</strong> <code>b&lt;c</code></p>"),
            ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
            ("a <b onclick=x>c</b>", "<p>a &lt;b onclick=x&gt;c&lt;/b&gt;</p>"),
            ("[x](javascript:alert(1))", "<p><a title=\"javascript:alert(1)\">x</a></p>"),
            ("[x](data:text/html,y)", "<p><a title=\"data:text/html,y\">x</a></p>"),
            ("[x](//evil.example)", "<p><a title=\"//evil.example\">x</a></p>"),
            (
                "[x](https://a.example/\"y)",
                "<p><a href=\"https://a.example/&quot;y\" rel=\"noreferrer noopener nofollow\" target=\"_blank\">x</a></p>",
            ),
            ("![alt](https://evil.example/pixel.png)", "<p>[image https://evil.example/pixel.png: alt]</p>"),
            (
                "```html\n<script>x</script>\n```",
                "<pre tabindex=\"0\"><code>&lt;script&gt;x&lt;/script&gt;\n</code></pre>",
            ),
            ("# <script>", "<p class=\"h\">&lt;script&gt;</p>"),
            ("\u{1b}[31mred\u{202e}", "<p>\\u{1b}[31mred\\u{202e}</p>"),
        ] {
            assert_eq!(markdown(text).into_string(), format!("<div class=\"md\">{expect}</div>"), "{text}");
        }
    }

    #[test]
    fn a_long_text_is_shown_as_it_is() {
        let long = "*a*".repeat(FORMATTED / 2);
        assert!(markdown(&long).into_string().starts_with("<pre>*a*"));
        assert!(!markdown(&"<b>".repeat(FORMATTED)).into_string().contains("<b>"));
    }
}
