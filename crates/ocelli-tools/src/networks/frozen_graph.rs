//! From a frozen TensorFlow graph of a convolutional detector to ONNX, which `rten` runs.
//!
//! Read are the operations of which MobileNet detectors consist: `Conv2D`, `DepthwiseConv2dNative`, batch norm written
//! as `Mul` and `Add` by constants, `BiasAdd`, `Add`, `Relu6`. Constants are computed at once, and every factor and
//! summand per channel goes into the convolution before it, so that what is left is `Conv`, `Clip` and `Add` in the
//! order [1, C, H, W]. `SAME` padding is made explicit; it depends on the input's size, which is therefore fixed.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::protobuf::{Field, Message, fields, varint};

/// Longest chain of operations that is followed.
const DEEPEST: usize = 4096;

#[derive(Default)]
struct Node<'a> {
    op: &'a str,
    inputs: Vec<&'a str>,
    /// `AttrValue` messages by name.
    attributes: HashMap<&'a str, &'a [u8]>,
}

/// A constant: shape and values, row by row.
#[derive(Clone)]
struct Constant {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Something computed from the input: `[1, channels, height, width]`.
#[derive(Clone)]
struct Flow {
    name: String,
    channels: usize,
    height: usize,
    width: usize,
    /// The convolution that made it, where nothing but factors and summands came after.
    convolution: Option<usize>,
}

enum Known {
    Constant(Rc<Constant>),
    Flow(Flow),
}

struct Convolution {
    input: String,
    output: String,
    /// `[out, in / groups, h, w]`.
    shape: [usize; 4],
    weights: Vec<f32>,
    bias: Vec<f32>,
    groups: usize,
    stride: [usize; 2],
    /// Top, left, bottom, right.
    pads: [usize; 4],
}

enum Step {
    Convolution(usize),
    Clip { input: String, output: String },
    Add { inputs: [String; 2], output: String },
}

struct Converter<'a> {
    nodes: HashMap<&'a str, Node<'a>>,
    /// How many nodes use a node's result.
    users: HashMap<&'a str, usize>,
    known: HashMap<&'a str, Known>,
    begun: HashSet<&'a str>,
    convolutions: Vec<Convolution>,
    steps: Vec<Step>,
}

/// ONNX with the input `input`: f32 `[1, 3, side, side]`, and the outputs named, each `[1, C, H, W]`.
pub(super) fn to_onnx(graph: &[u8], input: &str, side: usize, outputs: &[String]) -> Result<Vec<u8>, String> {
    let mut converter = Converter::read(graph)?;
    let picture = Flow { name: input.to_owned(), channels: 3, height: side, width: side, convolution: None };
    let (input_name, _) =
        converter.nodes.get_key_value(input).ok_or_else(|| format!("the graph has no `{input}`"))?;
    converter.known.insert(input_name, Known::Flow(picture));
    let mut flows = Vec::new();
    for output in outputs {
        flows.push(converter.flow(output, 0)?);
    }
    Ok(converter.write(input, side, outputs, &flows))
}

impl<'a> Converter<'a> {
    fn read(graph: &'a [u8]) -> Result<Self, String> {
        let (mut nodes, mut users) = (HashMap::new(), HashMap::new());
        for field in fields(graph) {
            let (1, Field::Bytes(message)) = field? else { continue };
            let (mut name, mut node) = ("", Node::default());
            for field in fields(message) {
                match field? {
                    (1, text) => name = text.text().ok_or("a node's name is not text")?,
                    (2, text) => node.op = text.text().ok_or("a node's operation is not text")?,
                    (3, text) => {
                        let input = text.text().ok_or("a node's input is not text")?;
                        // `^name` orders without data; `name:0` is the first result.
                        if !input.starts_with('^') {
                            node.inputs.push(input.strip_suffix(":0").unwrap_or(input));
                        }
                    }
                    (5, Field::Bytes(entry)) => {
                        let (mut key, mut value) = ("", &[][..]);
                        for field in fields(entry) {
                            match field? {
                                (1, text) => key = text.text().unwrap_or(""),
                                (2, Field::Bytes(bytes)) => value = bytes,
                                _ => {}
                            }
                        }
                        node.attributes.insert(key, value);
                    }
                    _ => {}
                }
            }
            for &input in &node.inputs {
                *users.entry(input).or_insert(0) += 1;
            }
            nodes.insert(name, node);
        }
        Ok(Self {
            nodes,
            users,
            known: HashMap::new(),
            begun: HashSet::new(),
            convolutions: Vec::new(),
            steps: Vec::new(),
        })
    }

    fn flow(&mut self, name: &str, depth: usize) -> Result<Flow, String> {
        match self.value(name, depth)? {
            Known::Flow(flow) => Ok(flow.clone()),
            Known::Constant(_) => Err(format!("`{name}` is constant")),
        }
    }

    fn constant(&mut self, name: &str, depth: usize) -> Result<Rc<Constant>, String> {
        match self.value(name, depth)? {
            Known::Constant(constant) => Ok(constant.clone()),
            Known::Flow(_) => Err(format!("`{name}` is not constant")),
        }
    }

    fn value(&mut self, name: &str, depth: usize) -> Result<&Known, String> {
        let Some((&name, _)) = self.nodes.get_key_value(name) else {
            return Err(format!("the graph has no `{name}`"));
        };
        if !self.known.contains_key(name) {
            if depth > DEEPEST || !self.begun.insert(name) {
                return Err(format!("`{name}` needs itself, or its chain of operations is too long"));
            }
            let made = self.make(name, depth + 1)?;
            self.known.insert(name, made);
        }
        self.known.get(name).ok_or_else(|| format!("`{name}` was not made"))
    }

    fn make(&mut self, name: &'a str, depth: usize) -> Result<Known, String> {
        let node = self.nodes.get(name).ok_or("no such node")?;
        let (op, inputs) = (node.op, node.inputs.clone());
        let wrong = || format!("`{name}` ({op}) has {} inputs", inputs.len());
        if op == "Const" {
            let value = node.attributes.get("value").ok_or("a constant without a value")?;
            return tensor(value).map(|t| Known::Constant(t.into())).map_err(|e| format!("`{name}`: {e}"));
        }
        let &first = inputs.first().ok_or_else(wrong)?;
        let second = || inputs.get(1).copied().ok_or_else(wrong);
        match op {
            "Identity" => Ok(match self.value(first, depth)? {
                Known::Constant(c) => Known::Constant(c.clone()),
                Known::Flow(f) => Known::Flow(f.clone()),
            }),
            "Relu6" => {
                let flow = self.flow(first, depth)?;
                self.steps.push(Step::Clip { input: flow.name, output: name.to_owned() });
                Ok(Known::Flow(Flow { name: name.to_owned(), convolution: None, ..flow }))
            }
            "Rsqrt" => {
                let mut c = (*self.constant(first, depth)?).clone();
                c.values.iter_mut().for_each(|v| *v = 1.0 / v.sqrt());
                Ok(Known::Constant(c.into()))
            }
            "Conv2D" | "DepthwiseConv2dNative" => {
                let weights = self.constant(second()?, depth)?;
                let flow = self.flow(first, depth)?;
                self.convolution(name, flow, weights).map_err(|e| format!("`{name}`: {e}"))
            }
            "Mul" | "Add" | "Sub" | "BiasAdd" => self.binary(name, op, first, second()?, depth),
            other => Err(format!("`{name}`: the operation `{other}` is not known here")),
        }
    }

    fn binary(&mut self, name: &str, op: &str, a: &str, b: &str, depth: usize) -> Result<Known, String> {
        // The first operand is made first, so that steps stand in the order in which they can run.
        self.value(a, depth)?;
        self.value(b, depth)?;
        let sides = (self.known.get(a), self.known.get(b));
        let apply = |x: f32, y: f32| match op {
            "Mul" => x * y,
            "Sub" => x - y,
            _ => x + y,
        };
        let (flow, constant) = match sides {
            (Some(Known::Constant(x)), Some(Known::Constant(y))) => {
                return both(x, y, apply)
                    .map(|c| Known::Constant(c.into()))
                    .map_err(|e| format!("`{name}`: {e}"));
            }
            (Some(Known::Flow(x)), Some(Known::Flow(y))) if op == "Add" => {
                if (x.channels, x.height, x.width) != (y.channels, y.height, y.width) {
                    return Err(format!("`{name}` adds what has different shapes"));
                }
                let inputs = [x.name.clone(), y.name.clone()];
                let made = Flow { name: name.to_owned(), convolution: None, ..x.clone() };
                self.steps.push(Step::Add { inputs, output: name.to_owned() });
                return Ok(Known::Flow(made));
            }
            (Some(Known::Flow(x)), Some(Known::Constant(y))) if op != "Sub" => (x.clone(), y.clone()),
            (Some(Known::Constant(x)), Some(Known::Flow(y))) if op != "Sub" => (y.clone(), x.clone()),
            _ => return Err(format!("`{name}` ({op}) joins what cannot be joined")),
        };
        let alone = self.users.get(flow.name.as_str()).copied().unwrap_or(0) <= 1;
        let at = flow.convolution.filter(|_| alone).and_then(|k| self.convolutions.get_mut(k));
        let (Some(convolution), true) = (at, constant.values.len() == flow.channels) else {
            return Err(format!("`{name}` ({op}) does not follow a convolution with one number per channel"));
        };
        let per_channel = convolution.weights.len() / flow.channels.max(1);
        for (channel, &value) in constant.values.iter().enumerate() {
            if op == "Mul" {
                let weights = &mut convolution.weights[channel * per_channel..(channel + 1) * per_channel];
                weights.iter_mut().for_each(|w| *w *= value);
            }
            convolution.bias[channel] = apply(convolution.bias[channel], value);
        }
        convolution.output = name.to_owned();
        Ok(Known::Flow(Flow { name: name.to_owned(), ..flow }))
    }

    fn convolution(&mut self, name: &str, flow: Flow, weights: Rc<Constant>) -> Result<Known, String> {
        let node = self.nodes.get(name).ok_or("no such node")?;
        let list = |key: &str| node.attributes.get(key).map_or(Ok(Vec::new()), |v| integers(v));
        let stride = match list("strides")?[..] {
            [1, y @ 1..=16, x @ 1..=16, 1] => [y as usize, x as usize],
            ref other => return Err(format!("strides {other:?}")),
        };
        if !matches!(list("dilations")?[..], [] | [1, 1, 1, 1]) {
            return Err("a dilated convolution".into());
        }
        let text = |key: &str| {
            let value = node.attributes.get(key).copied().unwrap_or_default();
            fields(value).find_map(|f| f.ok().filter(|(n, _)| *n == 2).and_then(|(_, f)| f.text()))
        };
        if text("data_format").is_some_and(|f| f != "NHWC") || text("padding") != Some("SAME") {
            return Err("not in the order NHWC with SAME padding".into());
        }
        let [h, w, from, to] = weights.shape[..] else {
            return Err("weights that are not [h, w, in, out]".into());
        };
        let depthwise = node.op == "DepthwiseConv2dNative";
        if from != flow.channels || h == 0 || w == 0 || to == 0 || (depthwise && to != 1) {
            return Err(format!("weights {:?} on {} channels", weights.shape, flow.channels));
        }
        let (shape, groups) = if depthwise { ([from, 1, h, w], from) } else { ([to, from, h, w], 1) };
        let mut turned = Vec::with_capacity(weights.values.len());
        for o in 0..shape[0] {
            for i in 0..shape[1] {
                for k in 0..h * w {
                    let (i, o) = if depthwise { (o, 0) } else { (i, o) };
                    turned.push(weights.values[(k * from + i) * to + o]);
                }
            }
        }
        let (height, top, bottom) = same(flow.height, h, stride[0]);
        let (width, left, right) = same(flow.width, w, stride[1]);
        let k = self.convolutions.len();
        self.convolutions.push(Convolution {
            input: flow.name,
            output: name.to_owned(),
            shape,
            weights: turned,
            bias: vec![0.0; shape[0]],
            groups,
            stride,
            pads: [top, left, bottom, right],
        });
        self.steps.push(Step::Convolution(k));
        let (name, channels) = (name.to_owned(), shape[0]);
        Ok(Known::Flow(Flow { name, channels, height, width, convolution: Some(k) }))
    }

    fn write(&self, input: &str, side: usize, outputs: &[String], flows: &[Flow]) -> Vec<u8> {
        let mut graph = Message::default().text(2, "detector");
        for step in &self.steps {
            graph = match step {
                Step::Clip { input, output } => {
                    graph.message(1, &operation("Clip", &[input, "zero", "six"], output, &[]))
                }
                Step::Add { inputs: [a, b], output } => {
                    graph.message(1, &operation("Add", &[a, b], output, &[]))
                }
                Step::Convolution(k) => {
                    let c = &self.convolutions[*k];
                    let (weights, bias) = (format!("w{k}"), format!("b{k}"));
                    let attributes = [
                        ("kernel_shape", &c.shape[2..]),
                        ("strides", &c.stride[..]),
                        ("pads", &c.pads[..]),
                        ("group", &[c.groups][..]),
                    ];
                    let conv = operation("Conv", &[&c.input, &weights, &bias], &c.output, &attributes);
                    graph
                        .message(1, &conv)
                        .message(5, &initializer(&weights, &c.shape, &c.weights))
                        .message(5, &initializer(&bias, &[c.bias.len()], &c.bias))
                }
            };
        }
        graph = graph
            .message(5, &initializer("zero", &[], &[0.0]))
            .message(5, &initializer("six", &[], &[6.0]))
            .message(11, &value_info(input, &[1, 3, side, side]));
        for (name, flow) in outputs.iter().zip(flows) {
            graph = graph.message(12, &value_info(name, &[1, flow.channels, flow.height, flow.width]));
        }
        let operators = Message::default().text(1, "").integer(2, 13);
        Message::default().integer(1, 8).message(7, &graph).message(8, &operators).0
    }
}

/// Output length and the padding before and behind, of TensorFlow's `SAME`.
fn same(length: usize, kernel: usize, stride: usize) -> (usize, usize, usize) {
    let out = length.div_ceil(stride);
    let all = (out.saturating_sub(1) * stride + kernel).saturating_sub(length);
    (out, all / 2, all - all / 2)
}

/// Element by element; a single number goes with every element of the other side.
fn both(a: &Constant, b: &Constant, apply: impl Fn(f32, f32) -> f32) -> Result<Constant, String> {
    let (x, y) = (&a.values, &b.values);
    let (shape, values) = match (x.len(), y.len()) {
        (n, m) if n == m => (&a.shape, x.iter().zip(y).map(|(&x, &y)| apply(x, y)).collect()),
        (_, 1) => (&a.shape, x.iter().map(|&x| apply(x, y[0])).collect()),
        (1, _) => (&b.shape, y.iter().map(|&y| apply(x[0], y)).collect()),
        (n, m) => return Err(format!("{n} numbers and {m}")),
    };
    Ok(Constant { shape: shape.clone(), values })
}

/// The tensor of an `AttrValue`: f32 as one block, or one by one.
fn tensor(attribute: &[u8]) -> Result<Constant, String> {
    let mut message = None;
    for field in fields(attribute) {
        if let (8, Field::Bytes(bytes)) = field? {
            message = Some(bytes);
        }
    }
    let (mut shape, mut values, mut kind) = (Vec::new(), Vec::new(), 0);
    let mut block = |bytes: &[u8]| {
        values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    };
    for field in fields(message.ok_or("a constant that is no tensor")?) {
        match field? {
            (1, Field::Varint(v)) => kind = v,
            (2, Field::Bytes(dims)) => {
                for dim in fields(dims) {
                    let (2, Field::Bytes(dim)) = dim? else { continue };
                    let size = fields(dim).find_map(|f| f.ok().filter(|(n, _)| *n == 1)?.1.integer());
                    shape.push(usize::try_from(size.unwrap_or(0)).map_err(|e| e.to_string())?);
                }
            }
            (4 | 5, Field::Bytes(bytes)) => block(bytes),
            (5, Field::Fixed32(bytes)) => block(&bytes),
            _ => {}
        }
    }
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or("a shape beyond all bounds")?;
    // One number stands for all of a shape.
    if let [only] = values[..] {
        values = vec![only; count.min(1 << 20)];
    }
    match kind == 1 && values.len() == count {
        true => Ok(Constant { shape, values }),
        false => Err(format!("type {kind}, {} numbers of shape {shape:?}", values.len())),
    }
}

/// The list of integers of an `AttrValue`.
fn integers(attribute: &[u8]) -> Result<Vec<u64>, String> {
    let mut found = Vec::new();
    for field in fields(attribute) {
        let (1, Field::Bytes(list)) = field? else { continue };
        for field in fields(list) {
            match field? {
                (3, Field::Varint(v)) => found.push(v),
                (3, Field::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        found.push(varint(&mut packed).ok_or("a broken list")?);
                    }
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

/// ONNX's `NodeProto`.
fn operation(op: &str, inputs: &[&str], output: &str, attributes: &[(&str, &[usize])]) -> Message {
    let mut node = inputs.iter().fold(Message::default(), |m, input| m.text(1, input));
    node = node.text(2, output).text(3, output).text(4, op);
    for (name, values) in attributes {
        let attribute = Message::default().text(1, name);
        let attribute = match (*name, values) {
            ("group", [one]) => attribute.integer(3, *one as u64).integer(20, 2),
            _ => values.iter().fold(attribute, |m, v| m.integer(8, *v as u64)).integer(20, 7),
        };
        node = node.message(5, &attribute);
    }
    node
}

/// ONNX's `TensorProto` of f32.
fn initializer(name: &str, shape: &[usize], values: &[f32]) -> Message {
    let dims = shape.iter().fold(Message::default(), |m, d| m.integer(1, *d as u64));
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    dims.integer(2, 1).text(8, name).bytes(9, &bytes)
}

/// ONNX's `ValueInfoProto` of f32.
fn value_info(name: &str, shape: &[usize]) -> Message {
    let dim = |d: &usize| Message::default().integer(1, *d as u64);
    let shape = shape.iter().fold(Message::default(), |m, d| m.message(1, &dim(d)));
    let tensor = Message::default().integer(1, 1).message(2, &shape);
    Message::default().text(1, name).message(2, &Message::default().message(1, &tensor))
}
