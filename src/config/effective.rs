//! Converts the effective configuration back to the shape of the file, without secrets.
//!
//! Every field is destructured and every key of the file is set, so that a new one cannot be left out. Keys and headers
//! are shown by their source; URLs lose their user and query. Properties that follow from the table of vendors
//! have no key and are not shown.

use std::time::Duration;

use super::{
    ClientConfig, Config, History, Preset, Route, ServeConfig, Set,
    file::{
        ClientEntry, ConfigFile, EndpointEntry, LimitsEntry, ModelEntry, ParamsEntry, PresetEntry, PriceEntry,
        RouteEntry, ServeEntry, SpendEntry, TimeoutsEntry,
    },
    redact::without_secrets,
    values::{DurationEntry, KeyEntry, MoneyEntry, OrderedTable, RouteMember, Spanned},
};
use crate::{
    model::{
        ParamWorkaround, Params,
        api_key::{KeySource, redact_url},
        endpoint::{ConnectOptions, Endpoint, Limits, Timeouts},
        key_mask::{REDACTED, mask_key_shapes},
        target::{DecodeOptions, Price, Target},
    },
    routing::{
        RoutePolicy,
        spend::{Period, SpendLimit, SpendScope},
        strategy::Strategy,
    },
};

impl From<&Config> for ConfigFile {
    fn from(config: &Config) -> Self {
        let Config {
            files: _,
            default,
            compare,
            context,
            endpoints,
            models,
            routes,
            sets,
            presets,
            spend,
            serve,
            policies,
            history: History { store_content, retention_days },
            renamed_keys: _,
            warnings: _,
        } = config;
        let set = |Set { name, members }: &Set| (name.clone(), strings(members));
        Self {
            default: default.clone().map(Into::into),
            compare: compare.clone().map(Into::into),
            context: Some(keyword(*context)),
            endpoints: endpoints.iter().map(|endpoint| (endpoint.name.clone(), (&**endpoint).into())).collect(),
            models: models.iter().map(|model| (model.id.0.clone(), (&**model).into())).collect(),
            routes: routes.iter().map(|route| (route.name.clone(), route.into())).collect(),
            sets: sets.iter().map(set).collect(),
            presets: presets.iter().map(|preset| (preset.name.clone(), preset.into())).collect(),
            spend: spend_entry(spend),
            serve: serve.into(),
            retry: policies.into(),
            availability: policies.into(),
            max_answer_mb: Some(mebibytes(policies.answer.max_bytes)),
            history: Some(*store_content),
            history_days: retention_days.map(Into::into),
        }
    }
}

impl From<&Endpoint> for EndpointEntry {
    fn from(endpoint: &Endpoint) -> Self {
        let Endpoint {
            name: _,
            base_url,
            protocol,
            keys,
            headers,
            connect: ConnectOptions { proxy, ca_file, timeout: _, loopback: _, tls: _, new_connection: _ },
            timeouts,
            limits: Limits { max_concurrency, rpm, queue_timeout },
            gateway,
            no_stream_options: _,
            reasoning_models: _,
            gzip,
        } = endpoint;
        let header = |(name, value): &(http::HeaderName, KeySource)| (name.to_string(), key_entry(value).into());
        Self {
            base_url: Some(redact_url(base_url).into()),
            protocol: Some(protocol.0.to_owned().into()),
            api_key: None,
            api_keys: Some(keys.iter().map(|key| key_entry(key).into()).collect()),
            headers: headers.iter().map(header).collect(),
            timeouts: timeouts_entry(timeouts),
            max_concurrency: max_concurrency.map(Into::into),
            rpm: rpm.map(Into::into),
            queue: queue_timeout.map(DurationEntry),
            proxy: proxy.as_ref().map(|proxy| redact_url(proxy).into()),
            ca_file: ca_file.as_ref().map(|file| mask_key_shapes(&file.display().to_string()).into_owned().into()),
            gateway: Some(*gateway),
            gzip: Some(*gzip),
        }
    }
}

impl From<&Target> for ModelEntry {
    fn from(target: &Target) -> Self {
        let Target {
            id: _,
            endpoint,
            upstream_id,
            params,
            price,
            context_window,
            tags,
            decode_options: DecodeOptions { think_prefilled, cumulative_deltas },
            timeouts,
            is_reasoning,
            supports_images,
            supports_tools,
            workarounds,
        } = target;
        let dropped = workarounds.iter().filter_map(|workaround| match workaround {
            ParamWorkaround::Omit(field) => Some(field.clone().into()),
            _ => None,
        });
        let stream = workarounds.iter().find_map(|workaround| match workaround {
            ParamWorkaround::Stream(stream) => Some(*stream),
            _ => None,
        });
        let system = workarounds.iter().find_map(|workaround| match workaround {
            ParamWorkaround::System(role) => Some(keyword(*role)),
            _ => None,
        });
        // Without `capabilities` in the file, nothing is known about images and tools.
        let is_declared = supports_images.is_some();
        let capabilities = [
            ("reasoning", *is_reasoning && is_declared),
            ("images", supports_images.unwrap_or_default()),
            ("tools", supports_tools.unwrap_or_default()),
        ];
        let extra = toml::Table::try_from(without_secrets(&params.extra))
            .expect("`parse` rejects values that TOML or JSON lacks");
        Self {
            endpoint: endpoint.name.clone().into(),
            model: upstream_id.clone().into(),
            params: params.into(),
            extra,
            price: price.as_ref().map(Into::into),
            context: *context_window,
            tags: tags.clone(),
            capabilities: capabilities
                .iter()
                .filter(|(_, has)| *has)
                .map(|(name, _)| name.to_string().into())
                .collect(),
            timeouts: timeouts_entry(timeouts),
            think_prefilled: *think_prefilled,
            cumulative_deltas: *cumulative_deltas,
            drop: dropped.collect(),
            stream,
            system,
        }
    }
}

impl From<&Price> for PriceEntry {
    fn from(price: &Price) -> Self {
        let Price { input, output, cached_input, currency } = price;
        Self {
            input: (*input).into(),
            output: (*output).into(),
            cached_input: cached_input.map(Into::into),
            currency: Some(currency.clone().into()),
        }
    }
}

impl From<&Params> for ParamsEntry {
    fn from(params: &Params) -> Self {
        let Params { temperature, top_p, max_tokens, seed, stop, reasoning_effort, extra: _ } = params;
        Self {
            temperature: *temperature,
            top_p: *top_p,
            max_tokens: *max_tokens,
            seed: *seed,
            stop: stop.clone(),
            reasoning_effort: reasoning_effort.clone(),
        }
    }
}

impl From<&Route> for RouteEntry {
    fn from(route: &Route) -> Self {
        let Route {
            name: _,
            policy: RoutePolicy { strategy, weights, sticky, hedge_after },
            models,
            on_incomplete,
            hold,
            on_filter,
        } = route;
        let is_weighted = *strategy == Strategy::Weighted;
        let members = models.iter().zip(weights).map(|(model, weight)| {
            RouteMember { name: model.id.0.clone(), weight: is_weighted.then_some(*weight) }.into()
        });
        Self {
            strategy: Some(keyword(*strategy)),
            models: members.collect(),
            on_incomplete: on_incomplete.map(keyword),
            on_filter: Some(keyword(*on_filter)),
            sticky: *sticky,
            hedge_after: hedge_after.map(DurationEntry),
            hold: hold.map(DurationEntry),
        }
    }
}

impl From<&Preset> for PresetEntry {
    fn from(preset: &Preset) -> Self {
        let Preset { name: _, file: _, system, model, params, prompt } = preset;
        Self {
            system: system.clone().map(Into::into),
            model: model.clone().map(Into::into),
            params: params.into(),
            prompt: prompt.clone().map(Into::into),
        }
    }
}

fn mebibytes(bytes: usize) -> Spanned<u32> {
    u32::try_from(bytes / (1024 * 1024)).unwrap_or(u32::MAX).into()
}

impl From<&ServeConfig> for ServeEntry {
    fn from(serve: &ServeConfig) -> Self {
        let ServeConfig {
            listen,
            hold,
            drain,
            idle,
            request_headers,
            response_headers,
            max_body,
            hosts,
            cors,
            tls,
            memory,
            max_connections_per_address,
            aliases,
            clients,
        } = serve;
        let file = |path: &std::path::Path| path.display().to_string().into();
        Self {
            listen: Some(listen.clone().into()),
            hold: Some(DurationEntry(*hold)),
            drain: Some(DurationEntry(*drain)),
            idle: Some(DurationEntry(*idle)),
            request_headers: Some(strings(request_headers)),
            response_headers: Some(strings(response_headers)),
            max_body_mb: Some(mebibytes(*max_body)),
            memory_mb: Some(mebibytes(*memory)),
            max_connections_per_address: max_connections_per_address
                .map(|max| u32::try_from(max).unwrap_or(u32::MAX).into()),
            hosts: Some(strings(hosts)),
            cors: Some(strings(cors)),
            cert: tls.as_ref().map(|(cert, _)| file(cert)),
            key: tls.as_ref().map(|(_, key)| file(key)),
            aliases: aliases.iter().map(|alias| (alias.pattern.clone(), alias.target.clone().into())).collect(),
            keys: clients.iter().map(|client| (client.name.clone(), client.into())).collect(),
        }
    }
}

impl From<&ClientConfig> for ClientEntry {
    fn from(client: &ClientConfig) -> Self {
        let ClientConfig { name: _, key, models, rpm, max_concurrency, spend, metrics } = client;
        Self {
            api_key: key_entry(key).into(),
            models: models.as_deref().map(strings),
            rpm: rpm.map(Into::into),
            max_concurrency: max_concurrency.map(Into::into),
            spend: (!spend.is_empty()).then(|| MoneyEntry(spend.clone()).into()),
            metrics: Some(*metrics),
        }
    }
}

fn spend_entry(limits: &[SpendLimit]) -> SpendEntry {
    let mut entry = SpendEntry::default();
    for SpendLimit { scope, period, amount, currency } in limits {
        let (day, month) = match scope {
            SpendScope::All => (&mut entry.day, &mut entry.month),
            SpendScope::Endpoint(name) => limits_of(&mut entry.endpoints, name),
            SpendScope::Model(name) => limits_of(&mut entry.models, name),
        };
        let money = match period {
            Period::Day => day,
            Period::Month => month,
        };
        money.get_or_insert_with(|| MoneyEntry(Vec::new()).into()).value.0.push((currency.clone(), *amount));
    }
    entry
}

type Money = Option<Spanned<MoneyEntry>>;

/// The limits per day and per month of the entry `name`, which is added if it is missing.
fn limits_of<'a>(table: &'a mut OrderedTable<LimitsEntry>, name: &str) -> (&'a mut Money, &'a mut Money) {
    let position = table.0.iter().position(|(known, _)| known.value == name).unwrap_or_else(|| {
        table.0.push((name.to_owned().into(), LimitsEntry::default()));
        table.0.len() - 1
    });
    let LimitsEntry { day, month } = &mut table.0[position].1;
    (day, month)
}

fn timeouts_entry(timeouts: &Timeouts) -> Option<TimeoutsEntry> {
    let Timeouts { connect, first_token, idle, total } = *timeouts;
    let entry = |time: Option<Duration>| time.map(DurationEntry);
    let is_set = *timeouts != Timeouts::default();
    is_set.then(|| TimeoutsEntry {
        connect: entry(connect),
        first_token: entry(first_token),
        idle: entry(idle),
        total: entry(total),
    })
}

/// The source of a secret. The arguments of a command may contain secrets; the program identifies it.
fn key_entry(source: &KeySource) -> KeyEntry {
    match source {
        KeySource::Literal(_) => KeyEntry::Literal(REDACTED.to_owned()),
        KeySource::Env(name) => KeyEntry::Env(mask_key_shapes(name).into_owned()),
        KeySource::File(path) => KeyEntry::File(mask_key_shapes(&path.display().to_string()).into_owned()),
        KeySource::Keyring(name) => KeyEntry::Keyring(mask_key_shapes(name).into_owned()),
        KeySource::Command(args) => {
            let redacted = args.iter().skip(1).map(|_| REDACTED.to_owned());
            let program = args.first().map(|_| source.program().unwrap_or(REDACTED).to_owned());
            KeyEntry::Command(program.into_iter().chain(redacted).collect())
        }
        KeySource::Shell(line) => match source.program() {
            Some(program) if program == line.trim() => KeyEntry::Shell(program.to_owned()),
            Some(program) => KeyEntry::Shell(format!("{program} {REDACTED}")),
            None => KeyEntry::Shell(REDACTED.to_owned()),
        },
    }
}

fn keyword(value: impl Into<&'static str>) -> Spanned<String> {
    let name: &'static str = value.into();
    name.to_owned().into()
}

fn strings(values: &[String]) -> Vec<Spanned<String>> {
    values.iter().cloned().map(Into::into).collect()
}
