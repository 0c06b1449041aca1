//! The two ways in which checkpoints name Whisper's tensors.

/// A tensor's name in Hugging Face's checkpoints, from that in OpenAI's.
pub(super) fn hugging_face(name: &str) -> String {
    const WHOLE: [(&str, &str); 6] = [
        ("encoder.positional_embedding", "encoder.embed_positions.weight"),
        ("decoder.positional_embedding", "decoder.embed_positions.weight"),
        ("decoder.token_embedding.weight", "decoder.embed_tokens.weight"),
        ("encoder.ln_post.", "encoder.layer_norm."),
        ("decoder.ln.", "decoder.layer_norm."),
        (".blocks.", ".layers."),
    ];
    // The attentions' norms come first: their names begin as the attentions' do.
    const PARTS: [(&str, &str); 11] = [
        (".cross_attn_ln.", ".encoder_attn_layer_norm."),
        (".attn_ln.", ".self_attn_layer_norm."),
        (".cross_attn.", ".encoder_attn."),
        (".attn.", ".self_attn."),
        (".mlp_ln.", ".final_layer_norm."),
        (".mlp.0.", ".fc1."),
        (".mlp.2.", ".fc2."),
        (".query.", ".q_proj."),
        (".key.", ".k_proj."),
        (".value.", ".v_proj."),
        (".out.", ".out_proj."),
    ];
    let renamed = WHOLE.iter().chain(&PARTS).fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
    format!("model.{renamed}")
}

#[cfg(test)]
mod tests {
    use super::hugging_face;

    #[test]
    fn every_kind_of_name_has_its_other() {
        for (ours, theirs) in [
            ("encoder.conv1.weight", "model.encoder.conv1.weight"),
            ("encoder.positional_embedding", "model.encoder.embed_positions.weight"),
            ("encoder.blocks.3.attn.query.bias", "model.encoder.layers.3.self_attn.q_proj.bias"),
            ("encoder.blocks.0.attn_ln.weight", "model.encoder.layers.0.self_attn_layer_norm.weight"),
            ("encoder.ln_post.bias", "model.encoder.layer_norm.bias"),
            ("decoder.token_embedding.weight", "model.decoder.embed_tokens.weight"),
            ("decoder.positional_embedding", "model.decoder.embed_positions.weight"),
            ("decoder.blocks.1.cross_attn.out.weight", "model.decoder.layers.1.encoder_attn.out_proj.weight"),
            ("decoder.blocks.1.cross_attn_ln.bias", "model.decoder.layers.1.encoder_attn_layer_norm.bias"),
            ("decoder.blocks.1.attn.key.weight", "model.decoder.layers.1.self_attn.k_proj.weight"),
            ("decoder.blocks.1.attn.value.weight", "model.decoder.layers.1.self_attn.v_proj.weight"),
            ("decoder.blocks.2.mlp_ln.bias", "model.decoder.layers.2.final_layer_norm.bias"),
            ("decoder.blocks.2.mlp.0.weight", "model.decoder.layers.2.fc1.weight"),
            ("decoder.blocks.2.mlp.2.bias", "model.decoder.layers.2.fc2.bias"),
            ("decoder.ln.weight", "model.decoder.layer_norm.weight"),
        ] {
            assert_eq!(hugging_face(ours), theirs);
        }
    }
}
