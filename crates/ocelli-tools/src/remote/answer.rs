//! From a result of the protocol to a reply of a tool.

use rmcp::model::{CallToolResult, ContentBlock, MetaObject};
use serde_json::Value;

use crate::wire::{ErrorBody, ReplyBody, decode_picture};
use crate::{Affine, Fatal, Limits, Made, Picture, Reply, ToolError};

/// Marks in a result's `_meta`: its structured content is a [`ReplyBody`] or an [`ErrorBody`] of this crate; and the map
/// from the new picture's pixels to those of the picture in the call.
pub(crate) const OURS: &str = "ocelli/reply";
pub(crate) const TO_PARENT: &str = "ocelli/to_parent";

/// Reads a result. `parent` is the picture that the call named.
pub(super) fn reply(
    result: CallToolResult,
    server: &str,
    parent: Option<&Picture>,
    limits: &Limits,
) -> Result<Reply, ToolError> {
    let mark = |meta: &Option<MetaObject>, key: &str| meta.as_ref().and_then(|m| m.get(key).cloned());
    let ours = mark(&result.meta, OURS).is_some_and(|v| v == true);
    let to_parent = mark(&result.meta, TO_PARENT).and_then(|v| serde_json::from_value::<Affine>(v).ok());
    let to_parent = to_parent.filter(|a| a.is_finite() && a.inverse().is_some());
    let structured = result.structured_content.unwrap_or(Value::Null);
    let (text, images) = sorted(result.content, &structured);
    if result.is_error == Some(true) {
        if ours && let Ok(body) = serde_json::from_value::<ErrorBody>(structured) {
            return Err(body.error);
        }
        let why = if text.is_empty() { "the tool failed without a word".to_owned() } else { text };
        return Err(ToolError::ForModel(why));
    }
    let wrong = |why: String| ToolError::Fatal(Fatal::Remote { server: server.to_owned(), why });
    if ours && let Ok(mut body) = serde_json::from_value::<ReplyBody>(structured.clone()) {
        if let Some(image) = &mut body.image {
            image.png = images.into_iter().next();
        }
        // Only a tool of this process may end a dialogue.
        body.answer = None;
        return body.into_reply(limits).map_err(wrong);
    }
    let mut text = text;
    if images.len() > 1 {
        text.push_str(&format!("\n[{} further pictures of the answer are left out]", images.len() - 1));
    }
    let picture = images
        .first()
        .map(|data| decode_picture(data, limits))
        .transpose()
        .map_err(|why| wrong(why.clone()))?;
    let image = picture.map(|picture| {
        let same = parent.is_some_and(|p| (p.width(), p.height()) == (picture.width(), picture.height()));
        let to_parent = to_parent.or(same.then_some(Affine::IDENTITY));
        Made { picture, to_parent }
    });
    if text.is_empty() && image.is_none() {
        text = "The tool answered nothing.".to_owned();
    }
    Ok(Reply { text, data: structured, image, answer: None })
}

/// Texts joined, and the pictures' base64. Structured content stands in where there is no text at all.
fn sorted(content: Vec<ContentBlock>, structured: &Value) -> (String, Vec<String>) {
    let mut texts = Vec::new();
    let mut images = Vec::new();
    for block in content {
        match block {
            ContentBlock::Text(t) => texts.push(t.text),
            ContentBlock::Image(i) => images.push(i.data),
            ContentBlock::Audio(_) => texts.push("[sound left out]".to_owned()),
            ContentBlock::Resource(_) => texts.push("[embedded resource left out]".to_owned()),
            ContentBlock::ResourceLink(link) => texts.push(format!("[resource {}]", link.uri)),
            _ => texts.push("[content of an unknown kind left out]".to_owned()),
        }
    }
    if texts.is_empty() && !structured.is_null() {
        texts.push(structured.to_string());
    }
    (texts.join("\n"), images)
}

#[cfg(test)]
mod tests {
    use base64_simd::STANDARD;
    use serde_json::json;

    use super::*;

    fn picture(w: u32, h: u32) -> Picture {
        Picture::encode(&image::RgbImage::from_pixel(w, h, image::Rgb([9; 3]))).unwrap()
    }

    fn image(p: &Picture) -> ContentBlock {
        ContentBlock::image(STANDARD.encode_to_string(p.bytes()), "image/png")
    }

    fn read(result: CallToolResult, parent: &Picture) -> Result<Reply, ToolError> {
        reply(result, "there", Some(parent), &Limits::default())
    }

    #[test]
    fn the_map_is_that_of_the_meta_else_of_equal_sizes_else_unknown() {
        let parent = picture(20, 10);
        let same = read(CallToolResult::success(vec![image(&picture(20, 10))]), &parent).unwrap();
        assert_eq!(same.image.unwrap().to_parent, Some(Affine::IDENTITY));
        let other = || CallToolResult::success(vec![ContentBlock::text("cut"), image(&picture(5, 5))]);
        let unknown = read(other(), &parent).unwrap();
        assert_eq!((unknown.text.as_str(), unknown.image.unwrap().to_parent), ("cut", None));
        let mut told = other();
        let meta = json!({TO_PARENT: [1, 0, 7, 0, 1, 3]});
        told.meta = Some(MetaObject(meta.as_object().unwrap().clone()));
        assert_eq!(
            read(told, &parent).unwrap().image.unwrap().to_parent,
            Some(Affine::translation(7.0, 3.0))
        );
        let mut flat = other();
        let meta = json!({TO_PARENT: [0, 0, 7, 0, 0, 3]});
        flat.meta = Some(MetaObject(meta.as_object().unwrap().clone()));
        assert_eq!(read(flat, &parent).unwrap().image.unwrap().to_parent, None);
    }

    #[test]
    fn failures_are_sorted() {
        let parent = picture(4, 4);
        let failed =
            read(CallToolResult::error(vec![ContentBlock::text("no cat here")]), &parent).unwrap_err();
        assert_eq!(failed, ToolError::ForModel("no cat here".into()));
        let broken = ContentBlock::image("not base64!", "image/png");
        let broken = read(CallToolResult::success(vec![broken]), &parent).unwrap_err();
        assert!(matches!(broken, ToolError::Fatal(Fatal::Remote { .. })));
        let silent = read(CallToolResult::success(vec![]), &parent).unwrap();
        assert_eq!(silent.text, "The tool answered nothing.");
        let two = CallToolResult::success(vec![image(&parent), image(&parent)]);
        assert!(read(two, &parent).unwrap().text.contains("1 further"));
    }

    #[test]
    fn a_remote_tool_cannot_end_a_dialogue() {
        let mut result = CallToolResult::success(vec![]);
        result.structured_content = Some(json!({"text": "t", "data": null, "answer": "42"}));
        result.meta = Some(MetaObject(json!({OURS: true}).as_object().unwrap().clone()));
        let reply = read(result, &picture(4, 4)).unwrap();
        assert_eq!((reply.text.as_str(), reply.answer), ("t", None));
    }
}
