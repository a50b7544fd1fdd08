"use strict";
setInterval(async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch("/now");
    if (answer.ok) document.getElementById("now").innerHTML = await answer.text();
  } catch {
    // The server is gone for now; the next second tries again.
  }
}, 1000);
