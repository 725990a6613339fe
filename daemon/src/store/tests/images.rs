use super::*;

fn image(bytes: &[u8]) -> (Field, Media) {
    (Field::Input, Media::new("image/png", bytes.to_vec(), 0).unwrap())
}

fn showing(trace: u8, id: u8, media: &[(Field, Media)]) -> Observation {
    Observation { media: media.to_vec(), ..span(trace, id, 9) }
}

/// Hash and span of all uploads in order; each is settled.
fn uploads(store: &mut Store, destination: DestinationId) -> Vec<([u8; 32], u8)> {
    let mut found = Vec::new();
    while let Some(link) = store.next_media(destination).unwrap() {
        store.media_settled(destination, &link, None).unwrap();
        found.push((link.hash, link.span_id[0]));
    }
    found
}

#[test]
fn an_image_waits_once_however_many_spans_show_it_and_goes_with_the_last() {
    let (dir, mut store) = fresh();
    let (one, two) = (image(&[1; 1000]), image(&[2; 500]));
    let both = [one.clone(), two.clone(), one.clone()];
    let step = step(vec![showing(1, 1, &both), showing(1, 2, std::slice::from_ref(&one))]);
    let (to, _) = store.advance_one(&step).unwrap();
    store.advance_one(&step).unwrap();
    assert_eq!((count(&store, "media"), count(&store, "media_link")), (2, 3));
    assert_eq!(store.media_waiting[&to], 1500);
    drop(store);
    let mut store = opened(&dir);
    assert_eq!((store.media_waiting[&to], store.destinations().unwrap()[0].media), (1500, 3));
    assert_eq!(store.media_bytes(to, &one.1.hash).unwrap().unwrap(), [1; 1000]);
    // A failed upload comes after those that were not tried yet.
    let first = store.next_media(to).unwrap().unwrap();
    store.media_postponed(&first, "busy").unwrap();
    assert_eq!(store.counts().unwrap().media, (3, Some("busy".into())));
    assert_eq!(uploads(&mut store, to), [(two.1.hash, 1), (one.1.hash, 2), (one.1.hash, 1)]);
    assert_eq!((store.media_waiting[&to], count(&store, "media")), (0, 0));
    assert_eq!(store.waiting_bytes(&hint("e-1", 1).targets[0].destination).unwrap(), store.waiting[&to]);
}

#[test]
fn an_image_whose_bytes_were_let_go_is_linked_all_the_same() {
    let (_dir, mut store) = fresh();
    let (field, whole) = image(&[1; 1000]);
    let bare = (field, Media { bytes: Default::default(), ..whole.clone() });
    let (to, _) = store.advance_one(&step(vec![showing(1, 1, &[bare])])).unwrap();
    assert_eq!(store.media_bytes(to, &whole.hash).unwrap(), None);
    store.advance_one(&step(vec![showing(1, 2, &[(field, whole.clone())])])).unwrap();
    assert_eq!(
        (store.media_bytes(to, &whole.hash).unwrap().map(|b| b.len()), store.media_waiting[&to]),
        (Some(1000), 1000)
    );
    assert_eq!(uploads(&mut store, to).len(), 2);
}

#[test]
fn images_have_room_of_their_own_and_what_finds_none_is_counted() {
    let (_dir, mut store) = fresh();
    let large = |n: u8| image(&vec![n; 20 << 20]);
    let spans = (1..=4).map(|n| showing(1, n, &[large(n)])).collect();
    let (to, queued) = store.advance_one(&step(spans)).unwrap();
    assert_eq!((queued, count(&store, "media"), store.counts().unwrap().skipped["media_no_room"]), (4, 3, 1));
    assert!(store.media_waiting[&to] <= media::MAX_WAITING_BYTES && store.waiting[&to] < 10_000);
    let link = store.next_media(to).unwrap().unwrap();
    store.media_settled(to, &link, Some("media_refused")).unwrap();
    assert_eq!(store.counts().unwrap().skipped["media_refused"], 1);
    store.advance_one(&step(vec![showing(1, 5, &[large(5)])])).unwrap();
    assert_eq!(count(&store, "media"), 3);
}
