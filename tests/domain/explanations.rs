//! Explanations of requirements: they report the decision of the check, and both agree with a slow
//! model.

use std::sync::Arc;

use http::Request;
use portunus::actor::{Actor, ActorMode};
use portunus::adapter::tower::HttpHead;
use portunus::key::{Access, Environment, KeyId, Owner, PlanName, WorkspaceId};
use portunus::policy::{Explanation, PlanOrder};
use portunus::scope::{ScopeModel, WildcardModel};
use portunus::{ErrorCode, KeyPrincipal, Principal, Requirement, ScopeSet};
use portunus_test_support::{Fixture, live, scope, user};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Tree {
    Scope(usize),
    Any(Vec<Tree>),
    All(Vec<Tree>),
    Reading,
    Writing,
    User,
    Organization,
    AnyWorkspace,
    Plan(usize),
}

const SCOPES: [&str; 5] = ["a:x", "a:y", "a:*", "b.z", "*"];
const PLANS: [&str; 3] = ["free", "standard", "enterprise"];

impl Tree {
    fn requirement(&self) -> Requirement {
        let several = |trees: &[Self]| trees.iter().map(Self::requirement).collect::<Vec<_>>();
        match self {
            Self::Scope(at) => scope(SCOPES[*at]).into(),
            Self::Any(trees) => Requirement::any_of(several(trees)),
            // An empty list does not become a requirement.
            Self::All(trees) => Requirement::all_of_list(several(trees))
                .unwrap_or(Requirement::any_of::<Requirement>([])),
            Self::Reading => Requirement::reading(),
            Self::Writing => Requirement::writing(),
            Self::User => Requirement::user(),
            Self::Organization => Requirement::organization(),
            Self::AnyWorkspace => Requirement::none().any_workspace(),
            Self::Plan(at) => PlanOrder::new(PLANS).unwrap().at_least(PLANS[*at]).unwrap(),
        }
    }

    /// All combinations of single requirements that satisfy it.
    fn ways(&self) -> Vec<Vec<&Self>> {
        match self {
            Self::Any(several) => several.iter().flat_map(Self::ways).collect(),
            Self::All(parts) if parts.is_empty() => Vec::new(),
            Self::All(parts) => parts.iter().fold(vec![Vec::new()], |ways, part| {
                let more = part.ways();
                ways.iter()
                    .flat_map(|way| more.iter().map(|more| [&way[..], more].concat()))
                    .collect()
            }),
            single => vec![vec![single]],
        }
    }
}

#[derive(Debug, Clone)]
struct Somebody {
    like: KeyPrincipal,
    scopes: Arc<dyn ScopeSet>,
    access: Access,
    workspaces: Option<Vec<WorkspaceId>>,
    plan: Option<PlanName>,
    user: Option<portunus::key::UserId>,
}

impl Principal for Somebody {
    fn key_id(&self) -> &KeyId {
        self.like.key_id()
    }
    fn owner(&self) -> &Owner {
        self.like.owner()
    }
    fn actor(&self) -> Actor<'_> {
        let mode = if self.user.is_some() {
            ActorMode::Delegated
        } else {
            ActorMode::App
        };
        Actor::new(mode, self.user.as_ref(), None)
    }
    fn environment(&self) -> &Environment {
        self.like.environment()
    }
    fn scopes(&self) -> &dyn ScopeSet {
        &*self.scopes
    }
    fn access(&self) -> Access {
        self.access
    }
    fn workspaces(&self) -> Option<&[WorkspaceId]> {
        self.workspaces.as_deref()
    }
    fn plan(&self) -> Option<&PlanName> {
        self.plan.as_ref()
    }
}

impl Somebody {
    fn holds(&self, single: &Tree, writes: bool, request: bool) -> bool {
        match single {
            Tree::Scope(at) => self.scopes.grants(&scope(SCOPES[*at])),
            Tree::Reading | Tree::AnyWorkspace => true,
            Tree::Writing => self.access == Access::FullAccess,
            Tree::User => self.user.is_some(),
            Tree::Organization => self.workspaces.is_none() || (request && !writes),
            Tree::Plan(at) => self
                .plan
                .as_ref()
                .is_some_and(|plan| PLANS[*at..].contains(&plan.as_str())),
            Tree::Any(_) | Tree::All(_) => unreachable!(),
        }
    }

    /// The decision of the slow, obviously correct model.
    fn meets(&self, tree: &Tree, method: Option<&str>) -> bool {
        let by_method = method.is_some_and(|method| !["GET", "HEAD", "OPTIONS"].contains(&method));
        let closed = by_method && self.access == Access::ReadOnly;
        tree.ways().iter().any(|way| {
            let states = |what: fn(&Tree) -> bool| way.iter().any(|single| what(single));
            let reads = states(|single| matches!(single, Tree::Reading));
            let writes = states(|single| matches!(single, Tree::Writing));
            let of_workspaces =
                states(|single| matches!(single, Tree::Organization | Tree::AnyWorkspace));
            // If both are stated, it writes.
            let is_write = writes || (!reads && by_method);
            (reads || writes || !closed)
                && (of_workspaces || method.is_none() || self.workspaces.is_none())
                && way
                    .iter()
                    .all(|single| self.holds(single, is_write, method.is_some()))
        })
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let single = prop_oneof![
        4 => (0..SCOPES.len()).prop_map(Tree::Scope),
        1 => Just(Tree::Reading),
        1 => Just(Tree::Writing),
        1 => Just(Tree::User),
        1 => Just(Tree::Organization),
        1 => Just(Tree::AnyWorkspace),
        1 => (0..PLANS.len()).prop_map(Tree::Plan),
    ];
    single.prop_recursive(3, 12, 3, |inner| {
        let several = prop::collection::vec(inner, 0..4);
        prop_oneof![
            several.clone().prop_map(Tree::Any),
            several.prop_map(Tree::All)
        ]
    })
}

fn like() -> KeyPrincipal {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let fixture = Fixture::new();
        let (key, _) = fixture.issue(&[]).await;
        let authenticator = fixture.bearer().environment(live()).build().unwrap();
        authenticator
            .authenticate(&portunus_test_support::Head::bearer(&key))
            .await
            .unwrap()
            .principal
            .unwrap()
    })
}

fn somebodies() -> impl Strategy<Value = Somebody> {
    let like = like();
    let scopes = prop::collection::vec(0..SCOPES.len() - 1, 0..4);
    let facts = (
        scopes,
        any::<bool>(),
        any::<bool>(),
        prop::option::of(0..PLANS.len()),
        any::<bool>(),
    );
    facts.prop_map(move |(scopes, reads, confined, plan, acts)| Somebody {
        like: like.clone(),
        scopes: {
            let scopes: Vec<_> = scopes.into_iter().map(|at| scope(SCOPES[at])).collect();
            WildcardModel.compile(&scopes).unwrap()
        },
        access: if reads {
            Access::ReadOnly
        } else {
            Access::FullAccess
        },
        workspaces: confined.then(|| vec![WorkspaceId::new("ws1").unwrap()]),
        plan: plan.map(|at| PlanName::new(PLANS[at]).unwrap()),
        user: acts.then(|| user("u1")),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn an_explanation_says_what_the_check_decides(
        tree in trees(),
        somebody in somebodies(),
        method in prop::option::of(prop::sample::select(vec!["GET", "HEAD", "OPTIONS", "POST", "DELETE"])),
    ) {
        let requirement = tree.requirement();
        let request = method.map(|method| Request::builder().method(method).uri("/").body(()).unwrap());
        let head = request.as_ref().map(|request| HttpHead::new(request, None));
        let head = head.as_ref().map(|head| head as &dyn portunus::RequestHead);
        let expected = somebody.meets(&tree, method);
        prop_assert_eq!(requirement.check(&somebody, head).is_ok(), expected);
        let explanation = requirement.explain_for(&somebody, head);
        prop_assert!(!explanation.to_string().is_empty());
        match explanation {
            Explanation::Met(met) => {
                prop_assert!(expected);
                // The named requirements are sufficient, and all of them are met.
                let named = |single: &Tree| {
                    matches!(single, Tree::AnyWorkspace)
                        || met.iter().any(|(part, _)| *part == single.requirement())
                };
                let enough = tree.ways().iter().any(|way| way.iter().all(|single| named(single)));
                prop_assert!(enough, "{:?} is not why", met);
                for (part, because) in &met {
                    prop_assert!(!because.is_empty());
                    for needed in part.scope_part().scopes() {
                        prop_assert!(somebody.scopes.grants(needed));
                    }
                }
            }
            Explanation::Missing(missing) => {
                prop_assert!(!expected);
                prop_assert_ne!(missing, Requirement::none());
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[tokio::test]
async fn an_explanation_names_full_access_if_it_is_missing() {
    let somebody = Somebody {
        like: tokio::task::spawn_blocking(like).await.unwrap(),
        scopes: WildcardModel.compile(&[]).unwrap(),
        access: Access::ReadOnly,
        workspaces: None,
        plan: None,
        user: None,
    };
    let request = Request::builder().method("POST").uri("/").body(()).unwrap();
    let head = HttpHead::new(&request, None);
    let requirement = Requirement::scope(scope("a"));
    assert_eq!(
        requirement
            .check(&somebody, Some(&head))
            .unwrap_err()
            .code(),
        ErrorCode::ReadOnlyKey
    );
    let explained = requirement.explain_for(&somebody, Some(&head)).to_string();
    assert!(
        explained.contains("full access"),
        "after {explained:?} is granted, the request is still refused"
    );
}
