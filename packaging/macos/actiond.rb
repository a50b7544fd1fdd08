# A Homebrew formula for a release of darwin-actiond: one signed executable with the guest inside.
# A release fills in the three words in capitals; `brew audit` was not run, for lack of a Mac.
class Actiond < Formula
  desc "Remote Execution worker and cache that runs Linux actions in a small VM"
  homepage "RELEASE_HOMEPAGE"
  url "RELEASE_URL"
  sha256 "RELEASE_SHA256"
  license "Apache-2.0"

  depends_on arch: :arm64
  depends_on macos: :ventura

  def install
    bin.install "darwin-actiond"
  end

  service do
    run [opt_bin/"darwin-actiond", "serve-vm", "--root=#{var}/actiond"]
    keep_alive true
    process_type :interactive
    error_log_path var/"log/darwin-actiond.log"
  end

  def post_install
    # For the user alone: who can write there chooses what the VM boots, and serve-vm refuses others.
    (var/"actiond").mkpath
    chmod 0700, var/"actiond"
  end

  test do
    assert_match "kernel", shell_output("#{bin}/darwin-actiond extract --root=#{testpath}")
  end
end
