//! The names of COCO's objects, and what people call them besides.

/// Name of each class from 1 on; those that COCO left out of its 2017 set are empty.
#[rustfmt::skip]
pub(crate) const NAMES: [&str; 90] = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep",
    "cow", "elephant", "bear", "zebra", "giraffe", "", "backpack", "umbrella", "", "",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove",
    "skateboard", "surfboard", "tennis racket", "bottle", "", "wine glass", "cup", "fork", "knife", "spoon",
    "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut",
    "cake", "chair", "couch", "potted plant", "bed", "", "dining table", "", "", "toilet",
    "", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster",
    "sink", "refrigerator", "", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
];

/// Other words for them.
const ALIASES: [(&str, &str); 26] = [
    ("man", "person"),
    ("woman", "person"),
    ("child", "person"),
    ("people", "person"),
    ("bike", "bicycle"),
    ("motorbike", "motorcycle"),
    ("automobile", "car"),
    ("plane", "airplane"),
    ("aeroplane", "airplane"),
    ("lorry", "truck"),
    ("ship", "boat"),
    ("ball", "sports ball"),
    ("rucksack", "backpack"),
    ("bag", "handbag"),
    ("glass", "wine glass"),
    ("mug", "cup"),
    ("doughnut", "donut"),
    ("sofa", "couch"),
    ("plant", "potted plant"),
    ("table", "dining table"),
    ("television", "tv"),
    ("monitor", "tv"),
    ("computer", "laptop"),
    ("phone", "cell phone"),
    ("fridge", "refrigerator"),
    ("hair dryer", "hair drier"),
];

/// The name that the network knows for a word, in singular or plural; `None` where it knows no such thing.
pub(crate) fn canonical(word: &str) -> Option<&'static str> {
    let word = word.trim().to_lowercase();
    let word = ["the ", "a ", "an "].iter().find_map(|article| word.strip_prefix(article)).unwrap_or(&word);
    let known = |w: &str| {
        let alias = ALIASES.iter().find(|(other, _)| *other == w).map(|(_, name)| *name);
        NAMES.into_iter().find(|n| !n.is_empty() && *n == w).or(alias)
    };
    let singular = |end: &str, instead: &str| known(&format!("{}{instead}", word.strip_suffix(end)?));
    known(word).or_else(|| singular("s", "")).or_else(|| singular("es", "")).or_else(|| singular("ves", "fe"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_coco() {
        assert_eq!(NAMES.iter().filter(|n| !n.is_empty()).count(), 80);
        let at = |id: usize| NAMES[id - 1];
        // Ids as in COCO's own annotations.
        assert_eq!(
            (at(1), at(17), at(44), at(62), at(90)),
            ("person", "cat", "bottle", "chair", "toothbrush")
        );
        assert!(ALIASES.iter().all(|(_, name)| NAMES.contains(name)));
    }

    #[test]
    fn words_in_singular_and_plural() {
        for (word, name) in [
            ("Cats", "cat"),
            ("the dog", "dog"),
            ("buses", "bus"),
            ("knives", "knife"),
            ("motorbike", "motorcycle"),
        ] {
            assert_eq!(canonical(word), Some(name));
        }
        assert_eq!(canonical("unicorn"), None);
        assert_eq!(canonical(""), None);
    }
}
