use skerry_edge_pop::Options;
#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let mut options = Options::new(args.next().unwrap().into(), args.next().unwrap().parse().unwrap());
    options.worker = std::env::var_os("SKERRY_WORKER").map(Into::into);
    options.keys = args.next().map(Into::into);
    options.origin = args.next();
    let pop = options.build().await.unwrap_or_else(|e| panic!("{e}"));
    println!("ready http://{}", pop.local_addr());
    pop.run(async { let _ = tokio::signal::ctrl_c().await; }).await.unwrap();
}
