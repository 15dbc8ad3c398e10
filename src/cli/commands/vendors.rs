//! `mmchat vendors`: lists the vendors whose base URL and key variable are built in.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::{
    CliError, Context,
    support::{exit::Exit, list_format::ListArgs},
};
use crate::{
    config::vendors::{self, Vendor},
    model::environment::Environment,
    render::table::Table,
};

/// List the vendors that need no base URL
#[derive(Debug, Args)]
#[command(
    after_help = "To use a vendor, add it as an endpoint, or set its key variable. An asterisk marks variables that \
    are set.\n\n\
    Examples:\n  \
      mmchat vendors\n  \
      mmchat vendors --format json\n  \
      mmchat endpoint add deepseek --key-env DEEPSEEK_API_KEY"
)]
pub(crate) struct VendorsArgs {
    #[command(flatten)]
    list: ListArgs,
}

pub(crate) fn run(args: &VendorsArgs, context: &Context) -> Result<Exit, CliError> {
    let mut table = Table::new(&["name", "service", "key", "usual model", "base_url"]);
    for vendor in vendors::all() {
        table.add_row(row(vendor, &context.environment));
    }
    let document: Vec<Value> = vendors::all().iter().map(|vendor| vendor_json(vendor, &context.environment)).collect();
    args.list.print(context, &[table], &document.into())?;
    Ok(Exit::Ok)
}

fn row(vendor: &Vendor, environment: &Environment) -> Vec<String> {
    let variable = vendor.key_variable(environment);
    let key = variable.map(|name| format!("{name}*")).or(vendor.key_env.first().cloned()).unwrap_or_default();
    let model = vendor.model.clone().unwrap_or_default();
    vec![vendor.name.clone(), vendor.title.clone(), key, model, vendor.base_url.clone()]
}

fn vendor_json(vendor: &Vendor, environment: &Environment) -> Value {
    json!({
        "name": vendor.name,
        "title": vendor.title,
        "base_url": vendor.base_url,
        "base_url_env": vendor.base_url_env,
        "key_env": vendor.key_env,
        "key_set": vendor.key_variable(environment),
        "model": vendor.model,
        "gateway": vendor.gateway,
    })
}
