//! Where the parts of a model stand in a checkpoint.

use std::sync::Arc;

use ocelli_tensor::{ParamId, Params};

use super::eyes::{Eyes, EyesConfig};
use super::{LoadOptions, Part};
use crate::ModelError;
use crate::config::ModelConfig;
use crate::declare::{Declare, Source};
use crate::text::TextNames;
use crate::weights::Weights;

/// Names of the parts in a checkpoint.
pub(super) struct Names {
    pub(super) text: TextNames,
    pub(super) eyes: Option<EyesNames>,
}

/// Names of tower and projector.
pub(super) struct EyesNames {
    config: EyesConfig,
    tower: String,
    projector: String,
}

impl Names {
    /// As the family's published checkpoints have them.
    pub(super) fn canonical(config: &ModelConfig) -> Result<Self, ModelError> {
        let eyes = EyesConfig::read(&config.fields(), config.text.hidden_size)?;
        let text = match &eyes {
            Some(EyesConfig::Qwen3(..)) if config.model_type == "qwen3_vl" => "model.language_model.",
            Some(EyesConfig::Intern(_)) => "language_model.model.",
            _ => "model.",
        };
        let text = TextNames { prefix: text.into(), ..TextNames::default() };
        let eyes = eyes.map(|c| EyesNames::at(c.prefixes()[0], c));
        Ok(Self { text, eyes })
    }

    /// As they are in these weights. In a composite model the top of the configuration says whether the output layer
    /// is tied; the text part may state its own default beside it.
    pub(super) fn find(config: &mut ModelConfig, weights: &Weights) -> Result<Self, ModelError> {
        let mut names = Self::canonical(config)?;
        let own = names.text.prefix.clone();
        let known = [own.as_str(), "model.", "model.language_model.", "language_model.model."];
        let embedding = |prefix: &&str| weights.contains(&format!("{prefix}embed_tokens.weight"));
        if let Some(prefix) = known.into_iter().find(embedding) {
            names.text.prefix = prefix.to_owned();
        }
        if let Some(head) =
            ["lm_head.weight", "language_model.lm_head.weight"].into_iter().find(|h| weights.contains(h))
        {
            names.text.head = head.to_owned();
        }
        if let Some(eyes) = &mut names.eyes {
            let landmark = |p: &&&str| weights.contains(&format!("{p}{}", eyes.config.landmark()));
            if let Some(prefix) = eyes.config.prefixes().iter().find(landmark) {
                *eyes = EyesNames::at(prefix, eyes.config.clone());
            }
            let stated = config.fields().bool_or("tie_word_embeddings", config.text.tie_word_embeddings)?;
            config.text.tie_word_embeddings = stated;
        }
        Ok(names)
    }
}

impl EyesNames {
    fn at(prefix: &str, config: EyesConfig) -> Self {
        Self { projector: config.projector_prefix(prefix), tower: prefix.to_owned(), config }
    }

    /// Lists, reads or draws tower and projector.
    pub(super) fn declare(
        &self,
        params: &mut Params,
        source: &mut Source<'_>,
        options: LoadOptions,
    ) -> Result<Eyes, ModelError> {
        let first = params.len();
        let part = |part: Part, prefix: &str| (part.group(), prefix.to_owned());
        let (group, prefix) = part(Part::Tower, &self.tower);
        let mut d = Declare::new(params, source.again(), group, &prefix, options.tower);
        let tower = self.config.tower(&mut d)?;
        let middle = params.len();
        let (group, prefix) = part(Part::Projector, &self.projector);
        let mut d = Declare::new(params, source.again(), group, &prefix, options.projector);
        let projector = self.config.projector(&mut d)?;
        let ids: Vec<ParamId> = params.ids().collect();
        Ok(Eyes {
            tower,
            projector,
            preprocessor: self.config.preprocessor(),
            merge: self.config.merge(),
            tower_params: ids[first..middle].to_vec(),
            projector_params: ids[middle..].to_vec(),
            cache: Arc::default(),
        })
    }
}
