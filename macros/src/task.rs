//! `#[task]`.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Error, FnArg, ItemFn, LitStr, Result, ReturnType, Signature, parse2};

/// Leaves the function as it is and adds its registration.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let function: ItemFn = parse2(item)?;
    let name = parse_name(attribute)?;
    check(&function.sig)?;
    let ident = &function.sig.ident;
    let text = ident.to_string();
    let name = match name {
        Some(name) => quote!(#name),
        None => quote!(::core::concat!(::core::module_path!(), "::", #text)),
    };
    let inputs = argument_types(&function.sig);
    let output = match &function.sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => ty.to_token_stream(),
    };
    let types: Vec<String> = inputs.iter().map(spaced).collect();
    let signature = format!("fn({}) -> {}", types.join(", "), spaced(&output));
    Ok(quote! {
        #function

        const _: () = {
            use ::multiproc::__private::linkme;

            #[linkme::distributed_slice(::multiproc::__private::TASKS)]
            #[linkme(crate = linkme)]
            static TASK: ::multiproc::__private::TaskInfo =
                ::multiproc::__private::TaskInfo::new::<_, (#(#inputs,)*)>(
                    #name,
                    #signature,
                    ::core::concat!(::core::file!(), ":", ::core::line!()),
                    #ident,
                );
        };
    })
}

fn parse_name(attribute: TokenStream) -> Result<Option<LitStr>> {
    if attribute.is_empty() {
        return Ok(None);
    }
    let pair: syn::MetaNameValue = parse2(attribute)?;
    match (&pair.path, &pair.value) {
        (path, syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(name), .. }))
            if path.is_ident("name") =>
        {
            Ok(Some(name.clone()))
        }
        _ => Err(Error::new_spanned(pair, "expected `name = \"…\"`")),
    }
}

fn check(signature: &Signature) -> Result<()> {
    let refuse = |tokens: &dyn ToTokens, message| Err(Error::new_spanned(tokens, message));
    if !signature.generics.params.is_empty() {
        let message = "a task has one name, so it cannot be generic: register a function that \
                       calls the generic one";
        return refuse(&signature.generics, message);
    }
    if let Some(token) = &signature.asyncness {
        return refuse(token, "a task cannot be async: its value must be there when it returns");
    }
    if let syn::Safety::Unsafe(token) = &signature.safety {
        return refuse(token, "a task cannot be unsafe: its callers do not know its conditions");
    }
    if let Some(receiver) = signature.receiver() {
        let message = "a task cannot be a method: register a function that calls it";
        return refuse(receiver, message);
    }
    Ok(())
}

fn argument_types(signature: &Signature) -> Vec<TokenStream> {
    let types = signature.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(typed) => Some(typed.ty.to_token_stream()),
        FnArg::Receiver(_) => None,
    });
    types.collect()
}

/// The type as it would be written: `Vec<u8>`, not `Vec < u8 >`.
fn spaced(tokens: &TokenStream) -> String {
    tokens
        .to_string()
        .replace(" < ", "<")
        .replace(" > ", ">")
        .replace(" >", ">")
        .replace(" :: ", "::")
        .replace(" ,", ",")
}
