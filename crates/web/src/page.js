"use strict";
// Keeps a page current. `data-live` of its main part says how: "now" is replaced by each event's HTML, "ended" is
// fetched anew when actions have ended.
(() => {
  const main = document.querySelector("main[data-live]");
  if (!main) return;
  const kind = main.dataset.live;
  // Without events (too many pages are open) the page asks, not as often.
  const POLL_MS = 5000;
  // A page about the past is made from the database: not more often than this.
  const RELOAD_MS = 2000;
  let source = null;
  let timer = null;
  let reloaded = 0;

  // Keeps what a reader has selected or focused.
  const replace = (html) => {
    const selection = getSelection();
    if (selection && !selection.isCollapsed && main.contains(selection.anchorNode)) return;
    const focused = main.contains(document.activeElement) ? document.activeElement : null;
    const place = focused && [focused.tagName, focused.id, focused.getAttribute("href")].join();
    main.innerHTML = html;
    if (!place) return;
    for (const element of main.querySelectorAll("a[href], [tabindex], summary")) {
      if ([element.tagName, element.id, element.getAttribute("href")].join() === place) {
        element.focus({ preventScroll: true });
        return;
      }
    }
  };

  const fetchAnew = async () => {
    try {
      const answer = await fetch(kind === "now" ? "/now" : location.href);
      if (!answer.ok) return;
      const text = await answer.text();
      if (kind === "now") return replace(text);
      const page = new DOMParser().parseFromString(text, "text/html");
      const part = page.querySelector("main");
      if (part) replace(part.innerHTML);
    } catch {
      // The server is gone for now; it is asked again later.
    }
  };

  const poll = () => {
    timer = timer || setInterval(fetchAnew, POLL_MS);
  };

  const reloadSoon = () => {
    const wait = Math.max(0, reloaded + RELOAD_MS - Date.now());
    timer = timer || setTimeout(() => {
      timer = null;
      reloaded = Date.now();
      fetchAnew();
    }, wait);
  };

  const stop = () => {
    if (source) source.close();
    clearTimeout(timer);
    source = timer = null;
  };

  const start = () => {
    source = new EventSource("/events?of=" + kind);
    let isFirst = true;
    source.addEventListener("now", (event) => replace(event.data));
    source.addEventListener("ended", () => {
      if (!isFirst) reloadSoon();
      isFirst = false;
    });
    source.onerror = () => {
      // A browser tries again by itself unless it was refused.
      if (source && source.readyState === EventSource.CLOSED) poll();
    };
  };

  // A page that nobody sees takes no place.
  document.addEventListener("visibilitychange", () => {
    stop();
    if (!document.hidden) start();
  });
  if (!document.hidden) start();
})();
