use super::*;

fn image(data: &str) -> Json {
    json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}})
}

#[test]
fn the_id_of_an_image_is_the_hash_of_its_bytes() {
    for (bytes, expect) in [
        // printf ABCD | openssl dgst -sha256 -binary | base64 | tr +/ -_ | cut -c1-22
        (&b"ABCD"[..], "4S4RWs9FUrJWi1XpPL05OU"),
        (b"hello", "LPJNul-wow4m6Dsqxbninh"),
    ] {
        let media = Media::new("image/png", bytes.to_vec(), 0).unwrap();
        assert_eq!(media_id(&media.hash), expect);
    }
}

#[test]
fn a_reference_replaces_an_image_and_its_bytes_are_returned() {
    let (png, id) = ("QUJDRA==", "4S4RWs9FUrJWi1XpPL05OU");
    let reference = format!("@@@langfuseMedia:type=image/png|id={id}|source=bytes@@@");
    let mut lines = conversation();
    lines[0]["message"]["content"] =
        json!([{"type": "text", "text": "a"}, image(png), {"type": "text", "text": "b"}, image(png)]);
    lines[2] = result("t1", json!([image(png)]), false);
    let found = observed(&lines, &Options::default());
    let spans = wire(&found);
    let part = json!({"type": "image_url", "image_url": {"url": reference}});
    let said = |text: &str| json!({"type": "text", "text": text});
    let messages = json!([{"role": "user", "content": [said("a"), part, said("b"), part]}]);
    for (index, keys) in
        [(0, &["langfuse.trace.input", "langfuse.observation.input"][..]), (1, &["langfuse.observation.input"])]
    {
        keys.iter().for_each(|key| assert_eq!(parsed(&spans[index], key), messages));
    }
    assert_eq!(parsed(&spans[2], "langfuse.observation.output"), json!([image(&reference)]));
    let shown = |out: &Outgoing| -> Vec<(Field, Vec<u8>)> {
        out.observation.media.iter().map(|(field, media)| (*field, media.bytes.to_vec())).collect()
    };
    let (input, output) = ((Field::Input, b"ABCD".to_vec()), (Field::Output, b"ABCD".to_vec()));
    let expect = [vec![input.clone(), input.clone()], vec![input.clone(), input], vec![output], vec![]];
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), expect);
    let options = Options { capture: Capture::Metadata, ..Options::default() };
    let found = observed(&lines, &options);
    assert!(found.iter().all(|out| out.observation.media.is_empty()));
    let spans = wire(&found);
    let content = "[3 characters] [image/png, 4 bytes] [image/png, 4 bytes]";
    assert_eq!(parsed(&spans[0], "langfuse.observation.input"), json!([{"role": "user", "content": content}]));
    assert!(spans[2].text("langfuse.observation.output").unwrap().ends_with("characters] [image/png, 4 bytes]"));
}

#[test]
fn references_to_media_are_not_masked() {
    let rules = Rules::default();
    for seed in 0..2000u32 {
        let media = Media::new("image/png", seed.to_le_bytes().to_vec(), 0).unwrap();
        let part = json!({"type": "image_url", "image_url": {"url": reference(&MediaRef::from(&media))}});
        let text = json!([{"role": "user", "content": [part]}]).to_string();
        assert_eq!(rules.scrub_json(&text, &mut Counts::new()), None, "{text}");
    }
}
