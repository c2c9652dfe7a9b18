//! What a policy is told about its tools, written from the tools' own declarations.

use ocelli_tools::ToolSpec;

use crate::formats::CallFormat;

/// The paragraph for the system prompt; `None` where the endpoint is told beside the text.
pub fn instructions(format: CallFormat, specs: &[ToolSpec]) -> Option<String> {
    let example = specs.first().map(|s| format.example(&s.name, s.example.clone()))?;
    match format {
        CallFormat::OpenAi => None,
        CallFormat::Hermes => {
            // The wording of Qwen 2.5's and 3's own chat template, which those models were trained on.
            let tools: String = specs.iter().map(|s| format!("{}\n", s.openai())).collect();
            Some(format!(
                "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n\
                 You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}</tools>\n\n\
                 For each function call, return a json object with function name and arguments within \
                 <tool_call></tool_call> XML tags:\n<tool_call>\n\
                 {{\"name\": <function-name>, \"arguments\": <args-json-object>}}\n</tool_call>"
            ))
        }
        CallFormat::Actions => {
            let tools: String = specs.iter().map(|s| s.prompt()).collect();
            Some(format!(
                "You answer questions about pictures, step by step, with these tools:\n\n{tools}\n\
                 In each turn write one JSON object with your thought and the tools to call, and nothing else:\n\
                 {example}\n\
                 Pictures are named img_0, img_1 and so on; coordinates are pixels of the picture that you name. \
                 Give the final answer by calling `answer`."
            ))
        }
    }
}
