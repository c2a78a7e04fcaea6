//! Updates: how an entry says what changed, and what the document is then.

use bson::{Bson, Document, doc};
use rand::Rng;

/// Draws a change of `document`; gives the entry's `o` and the document after it. `diffs` is whether the server writes the
/// second version of update entries.
pub fn draw(rng: &mut impl Rng, document: &Document, diffs: bool) -> (Document, Document) {
    match rng.gen_range(0..10) {
        0 => replacement(rng, document),
        1 | 2 if diffs => nested(rng, document),
        3 | 4 if diffs => array(rng, document),
        _ if diffs => flat(rng, document),
        _ => modifiers(rng, document),
    }
}

/// A value a field may have.
pub fn value(rng: &mut impl Rng) -> Bson {
    match rng.gen_range(0..9) {
        0 => Bson::Int32(rng.gen_range(-5..5)),
        1 => Bson::Int64(rng.r#gen()),
        2 => Bson::Double(f64::from(rng.gen_range(-1000..1000)) / 8.0),
        3 => Bson::Null,
        4 => Bson::Boolean(rng.r#gen()),
        5 => Bson::DateTime(bson::DateTime::from_millis(rng.gen_range(0..2_000_000_000_000))),
        6 => Bson::Binary(bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: (0..rng.gen_range(0..20)).map(|_| rng.r#gen()).collect(),
        }),
        7 => Bson::Document(doc! { "x": rng.gen_range(0..100), "y": "z" }),
        _ => Bson::String(text(rng, 40)),
    }
}

/// Words, up to `most` bytes of them.
pub fn text(rng: &mut impl Rng, most: usize) -> String {
    let len = rng.gen_range(0..=most);
    (0..len).map(|_| char::from(rng.gen_range(b'a'..=b'z'))).collect()
}

/// A whole new document under the same `_id`.
fn replacement(rng: &mut impl Rng, document: &Document) -> (Document, Document) {
    let mut after = Document::new();
    if let Some(id) = document.get("_id") {
        after.insert("_id", id.clone());
    }
    for name in ["a", "b", "sub", "list"] {
        if rng.gen_bool(0.7) {
            after.insert(name, fitting(rng, name));
        }
    }
    (after.clone(), after)
}

/// A value that suits a field's name: some are always documents, some always arrays.
pub fn fitting(rng: &mut impl Rng, name: &str) -> Bson {
    match name {
        "sub" => Bson::Document(doc! { "p": value(rng), "q": value(rng) }),
        "list" => Bson::Array((0..rng.gen_range(0..5)).map(|_| value(rng)).collect()),
        _ => value(rng),
    }
}

fn changeable(document: &Document) -> Vec<String> {
    document.keys().filter(|name| *name != "_id").cloned().collect()
}

fn pick(rng: &mut impl Rng, names: &[String]) -> Option<String> {
    (!names.is_empty()).then(|| names[rng.gen_range(0..names.len())].clone())
}

/// Sets, adds and removes fields: sections `d`, `u`, `i` of a diff.
fn flat(rng: &mut impl Rng, document: &Document) -> (Document, Document) {
    let mut after = document.clone();
    let mut diff = Document::new();
    let names = changeable(document);
    let gone = pick(rng, &names).filter(|_| names.len() > 3 && rng.gen_bool(0.3));
    if let Some(gone) = &gone {
        after.remove(gone);
        diff.insert("d", doc! { gone: false });
    }
    let changed = pick(rng, &names).filter(|name| Some(name) != gone.as_ref());
    if let Some(changed) = changed {
        let value = fitting(rng, &changed);
        after.insert(changed.clone(), value.clone());
        diff.insert("u", doc! { changed: value });
    }
    let fresh = format!("n{}", rng.gen_range(0..8));
    if diff.is_empty() || (!document.contains_key(&fresh) && rng.gen_bool(0.3)) {
        let value = value(rng);
        // An insertion of a field that is there moves it to the end.
        after.remove(&fresh);
        after.insert(fresh.clone(), value.clone());
        diff.insert("i", doc! { fresh: value });
    }
    (doc! { "$v": 2, "diff": diff }, after)
}

/// Changes a field of a field: section `s`.
fn nested(rng: &mut impl Rng, document: &Document) -> (Document, Document) {
    let Ok(sub) = document.get_document("sub") else {
        return flat(rng, document);
    };
    let mut inner = sub.clone();
    let (name, value) = (["p", "q"][rng.gen_range(0..2)], value(rng));
    let section = if inner.contains_key(name) { "u" } else { "i" };
    inner.insert(name, value.clone());
    let mut after = document.clone();
    after.insert("sub", inner);
    (
        doc! { "$v": 2, "diff": { "ssub": { section: { name: value } } } },
        after,
    )
}

/// Changes an element of an array, appends one, or cuts the array.
fn array(rng: &mut impl Rng, document: &Document) -> (Document, Document) {
    let Ok(list) = document.get_array("list") else {
        return flat(rng, document);
    };
    let mut list = list.clone();
    let mut diff = doc! { "a": true };
    if !list.is_empty() && rng.gen_bool(0.3) {
        let len = rng.gen_range(0..list.len());
        list.truncate(len);
        diff.insert("l", len as i32);
    } else {
        let at = rng.gen_range(0..=list.len());
        let value = value(rng);
        diff.insert(format!("u{at}"), value.clone());
        match list.get_mut(at) {
            Some(element) => *element = value,
            None => list.push(value),
        }
    }
    let mut after = document.clone();
    after.insert("list", list);
    (doc! { "$v": 2, "diff": { "slist": diff } }, after)
}

/// The first version of update entries: `$set` and `$unset`.
fn modifiers(rng: &mut impl Rng, document: &Document) -> (Document, Document) {
    let mut after = document.clone();
    let names = changeable(document);
    let gone = pick(rng, &names).filter(|_| names.len() > 3 && rng.gen_bool(0.3));
    let mut o = doc! { "$v": 1 };
    if let Some(gone) = gone {
        after.remove(&gone);
        o.insert("$unset", doc! { gone: true });
        return (o, after);
    }
    if let (Ok(sub), true) = (document.get_document("sub"), rng.gen_bool(0.3)) {
        let (mut inner, value) = (sub.clone(), value(rng));
        inner.insert("p", value.clone());
        after.insert("sub", inner);
        o.insert("$set", doc! { "sub.p": value });
        return (o, after);
    }
    let name = pick(rng, &names).unwrap_or_else(|| format!("n{}", rng.gen_range(0..8)));
    let value = fitting(rng, &name);
    after.insert(name.clone(), value.clone());
    o.insert("$set", doc! { name: value });
    (o, after)
}
